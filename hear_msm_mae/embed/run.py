"""Embed recordings into a file; an interrupted run continues when it is repeated."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import count_channels
from ..files import interrupts_held, printable
from ..model import HearModel
from .failures import rewrite, settled_name
from .formats import Format, format_of
from .pieces import Plan, Result, Resume, embed_recordings, make_plan
from .progress import Progress
from .remote import local_copy
from .settings import Settings, require_same
from .sources import Failure, Recording, find_recordings
from .store import Store
from .table import Done, Table, combined

Events = Generator[Result | tuple[Recording, Failure], None, None]
Embed = Callable[[Sequence[Recording], Plan, Resume | None], Events]


@dataclasses.dataclass
class Summary:
    """What became of a run.

    Attributes:
        files: recordings that were asked for; done: those that are in the output now.
        earlier: those of `done` that earlier runs embedded.
        failures: what could not be read; failures_file: where that is listed, if there is any.
        left_out: files that a search in folders left out.
        seconds: audio read by this run; speed: times real time.
    """

    files: int
    done: int
    earlier: int
    failures: list[Failure]
    failures_file: Path | None
    left_out: list[str]
    seconds: float
    speed: float


def embed_to(
    output: str | Path,
    sources: Any,
    model: HearModel,
    settings: Settings,
    *,
    channel: str | int = "mix",
    workers: int | None = None,
    overwrite: bool = False,
    flush_minutes: float | None = None,
    embed: Embed | None = None,
) -> Summary:
    """Embed recordings into a file or folder.

    Args:
        output: what to write; its ending says the format (see `formats.format_of`).
        sources: see `hear_msm_mae.embed.sources.find_recordings`.
        model: loaded as the settings say, on any device.
        settings: stored with the output.
        channel: "mix", "left", "right", a number, or "each" for an embedding of every channel.
        workers: threads that read.
        overwrite: start from scratch; an output that is there is replaced at the end.
        flush_minutes: bring the output up to date so often; by default at the end only.
        embed: another way to embed, e.g. on a cluster; the rows are the same.

    What could not be read is listed in `OUT.errors.csv`. Whatever happens, results up to the last
    second are in `OUT.partial`, and the same call continues from there.

    Raises:
        ValueError: bad options or sources; an output with other settings, or of somebody else.
        OSError: the output cannot be written.
    """
    format_ = format_of(output)
    output = Path(output)
    if output.name in ("", ".."):
        raise ValueError(f"--output must be the name of a file or folder, got {str(output)!r}")
    format_.needs()
    plan = make_plan(model, settings.timestamps, settings.segment, settings.overlap)
    if embed is None:

        def embed(recordings: Sequence[Recording], plan: Plan, resume: Resume | None) -> Events:
            return embed_recordings(recordings, plan, settings.dtype, workers, resume)

    failures: list[Failure] = []  # of files and folders
    left_out: list[str] = []
    recordings = find_recordings(sources, failures, left_out, channel)
    recordings = _each_channel(recordings, failures)
    folder = output.with_name(f"{output.name}.partial")
    width = model.timestamp_embedding_size if settings.timestamps else model.scene_embedding_size
    base = None
    # What cannot be read again is made from the store alone.
    replaces = overwrite or (not format_.readable and not output.exists())
    try:
        store = Store(folder, settings.stored(), width, plan.timeline, overwrite, replaces)
    except OSError as error:
        raise OSError(
            f"{printable(folder)} cannot be written: {error.strerror or error}"
        ) from error
    finished = begun = False
    try:
        require_same(folder, store.stored_settings(), settings.stored())
        if not store.replaces:
            base = _existing(output, format_)
            if base is not None:
                require_same(output, base.settings, settings.stored())
        elif output.is_dir():
            _existing(output, format_)  # a folder of somebody else is never replaced
        known = [*(base.recordings if base else ()), *store.table().recordings]
        names = format_.check_names(output, recordings, known)
        failures += [_failure(recordings[i], reason) for i, reason in names.items()]
        recordings = [r for i, r in enumerate(recordings) if i not in names]
        job = _Job(output, format_, store, base, recordings)
        rest = job.rest()
        earlier = len(recordings) - len(rest)
        progress = Progress(rest, model.sample_rate, earlier)
        resume = job.resume(rest[0]) if rest else None
        flushed, begun = time.monotonic(), True
        try:
            with closing(embed(rest, plan, resume)) as events:
                for event in events:
                    with interrupts_held(), _explained(output, folder, overwrite):
                        if isinstance(event, Result):
                            store.add(event, job.stamp(event.recording))
                        else:
                            store.drop(event[0])
                            failures.append(event[1])
                        progress.update(event)
                        if flush_minutes and time.monotonic() - flushed > 60 * flush_minutes:
                            job.write()
                            flushed = time.monotonic()
        finally:  # on Ctrl-C too: the output holds all that is complete
            progress.close()
            with _explained(output, folder, overwrite):
                job.write()
        settled = {settled_name(recording.where) for recording in recordings}
        with _explained(output, folder, overwrite):
            listed = rewrite(output, failures, settled)
        finished = True
    finally:  # a run that was refused leaves nothing
        store.close(remove=finished or (store.new and not begun))
    done = earlier + progress.done
    return Summary(
        len(recordings) + len(names),
        done,
        earlier,
        failures,
        listed,
        left_out,
        progress.seconds,
        progress.speed,
    )


class _Job:
    """The output of a run: what is in it, what is missing, and how it is written."""

    def __init__(
        self,
        output: Path,
        format_: Format,
        store: Store,
        base: Table | None,
        recordings: Sequence[Recording],
    ) -> None:
        self._output, self._format, self._store, self._base = output, format_, store, base
        self._recordings = recordings
        self._written = False
        self._stamps: dict[tuple[Any, ...], Any] = {}
        self._in_base: dict[tuple[Any, ...], int] = {}
        if base is not None:
            self._in_base = {tuple(done.key): i for i, done in enumerate(base.recordings)}

    def stamp(self, recording: Recording) -> Any:
        """What tells versions of a recording apart; it is asked once in a run."""
        key = recording.key
        if key not in self._stamps:
            self._stamps[key] = _stamp(recording)
        return self._stamps[key]

    def rest(self) -> list[Recording]:
        """What is to be done, the recording that was begun first."""
        rest = [recording for recording in self._recordings if not self._is_done(recording)]
        return sorted(rest, key=lambda recording: self.resume(recording) is None)

    def resume(self, recording: Recording) -> Resume | None:
        """Where a recording continues."""
        return self._store.resume(recording.key, self.stamp(recording))

    def _is_done(self, recording: Recording) -> bool:
        stamp = self.stamp(recording)
        if self._store.is_done(recording.key, stamp):
            return True
        index = self._in_base.get(recording.key)
        return (
            index is not None
            and self._base is not None
            and (self._base.recordings[index].stamp == stamp)
        )

    def write(self) -> None:
        """Bring the output up to date: what earlier runs embedded, then the input in its order."""
        new = self._store.table()
        tables = [new] if self._base is None else [self._base, new]
        places: dict[tuple[Any, ...], tuple[int, int]] = {}
        for number, table in enumerate(tables):
            for i, done in enumerate(table.recordings):
                places[tuple(done.key)] = number, i
        asked = {recording.key: recording for recording in self._recordings}
        order = [key for key in places if key not in asked]
        order += [key for key in asked if key in places]
        if not order:
            return
        table = combined(tables, [places[key] for key in order])
        for i, key in enumerate(order):
            if key in asked:
                table.recordings[i] = _done(asked[key], table.recordings[i].stamp)
        if self._base is not None and table.to_json() == self._base.to_json():
            return
        if self._store.replaces and not self._written and self._output.is_dir():
            with suppress(ValueError):  # it is empty
                self._format.clear(self._output)
        self._format.write(self._output, table)
        self._written = True
        if self._format.readable:
            written = self._read_again(table.total_rows)
            # Rows of earlier runs lie elsewhere in it now.
            self._base = None if self._base is None else written

    def _read_again(self, rows: int) -> Table:
        """The output as it is on the disk: the store is removed in the end, so it must be whole."""
        try:
            written = self._format.read(self._output)
        except ValueError as error:
            raise OSError(f"it cannot be read again: {error}") from error
        if written.total_rows != rows:
            raise OSError(f"it holds {written.total_rows} rows instead of {rows}")
        return written


def _stamp(recording: Recording) -> Any:
    """Size and time of change of a file, digest of audio in memory, None of a URL."""
    item = recording.item
    if item is None:
        try:
            status = Path(recording.where).stat()
            return [status.st_size, status.st_mtime_ns]
        except OSError:  # also for a URL
            return None
    if hasattr(item, "get_all_samples"):
        return secrets.token_hex(8)  # not decoded yet: never the same
    digest = hashlib.sha256()
    for part in item.values() if isinstance(item, Mapping) else item:
        array = hasattr(part, "__array__")
        digest.update(np.asarray(part).tobytes() if array else repr(part).encode())
    return digest.hexdigest()


def _done(recording: Recording, stamp: Any) -> Done:
    columns = dict(recording.columns)
    return Done(list(recording.key), printable(recording.path), recording.name, stamp, columns)


def _existing(output: Path, format_: Format) -> Table | None:
    """The output that is there; an empty folder is none.

    Raises:
        ValueError: it is of somebody else, or damaged.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        return format_.read(output)
    except ValueError as error:
        # A folder that is not an output may hold anything: it is never cleared.
        way = "" if output.is_dir() else ", or pass --overwrite"
        raise ValueError(
            f"{printable(output)} exists and cannot be continued: {error}; choose another "
            f"output{way}"
        ) from error


def _each_channel(recordings: Iterable[Recording], failures: list[Failure]) -> list[Recording]:
    """One recording for each channel, where that is asked for."""
    found: list[Recording] = []
    for recording in recordings:
        if recording.channel != "each":
            found.append(recording)
            continue
        try:
            with local_copy(recording.path) as path:
                channels = count_channels(path)
        except (OSError, ValueError) as error:
            failures.append(_failure(recording, str(error)))
            continue
        found += [dataclasses.replace(recording, channel=c) for c in range(channels)]
    return found


def _failure(recording: Recording, reason: str) -> Failure:
    reason = reason.removeprefix(f"{printable(recording.path)}: ")
    return Failure(recording.path, recording.start, recording.end, reason)


@contextmanager
def _explained(output: Path, folder: Path, overwrite: bool) -> Iterator[None]:
    """Say where everything is when something cannot be written."""
    try:
        yield
    except OSError as error:
        again = "repeat the command without --overwrite" if overwrite else "repeat the command"
        raise OSError(
            f"{printable(output)} cannot be written: {error.strerror or error}; what was computed "
            f"so far is kept in {printable(folder)}, make room and {again}"
        ) from error
