"""Embed recordings into a file. The same call continues an interrupted run."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..audio import count_channels
from ..files import interrupts_held, printable
from ..model import HearModel
from .cutting import Plan, Resume, make_plan
from .failures import read_earlier, rewrite
from .formats import Format, format_of
from .pieces import Result, embed_recordings
from .progress import Progress
from .remote import local_copy
from .settings import Settings, require_same
from .sources import Failure, Recording, find_recordings, stamp_of
from .store import Store
from .table import Done, Table, combined

Events = Generator[Result | tuple[Recording, Failure], None, None]
Embed = Callable[[Sequence[Recording], Plan, Resume | None], Events]


@dataclasses.dataclass
class Summary:
    """The result of a run."""

    files: int  # number of recordings in the input
    done: int  # number of them that are in the output now
    earlier: int  # number of them that earlier runs embedded
    failures: list[Failure]  # the recordings and folders that could not be read
    failures_file: Path | None  # the list of all failures of the output; None if there are none
    left_out: list[str]  # files in folders that are not audio
    seconds: float  # length of the audio that this run embedded
    speed: float  # seconds of audio per second


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

    Recordings that cannot be read are listed in `OUT.errors.csv`. Until the run is complete, its
    results are kept in `OUT.partial`, so the same call continues a run that was killed.

    Args:
        output: file or folder to write; its ending selects the format.
        sources, channel: see `hear_msm_mae.embed.sources.find_recordings`.
        model, settings: the model, on any device, and the result of `settings_of` for it.
        workers: number of threads that decode; by default one per processor, at most 16.
        overwrite: embed everything anew; an existing output is replaced at the end.
        flush_minutes: write the output every so many minutes; by default only at the end.
        embed: function that embeds, e.g. on a cluster; by default `embed_recordings`.

    Raises:
        ValueError: an option or a source is wrong, or the output exists and has other settings or
            was not written by this package.
        OSError: the output cannot be written.
    """
    format_ = format_of(output)
    output = Path(output)
    if output.name in ("", ".."):
        raise ValueError(f"--output must be the name of a file or folder, got {str(output)!r}")
    format_.needs()
    # A file of the user in place of the list is refused before any work.
    failures_file, _ = read_earlier(output)
    plan = make_plan(model, settings.timestamps, settings.segment, settings.overlap)
    if embed is None:

        def embed(recordings: Sequence[Recording], plan: Plan, resume: Resume | None) -> Events:
            return embed_recordings(recordings, plan, settings.dtype, workers, resume)

    failures: list[Failure] = []  # of files and folders
    left_out: list[str] = []
    recordings = find_recordings(sources, failures, left_out, channel)
    if is_source(output, sources):
        raise ValueError(f"{printable(output)} is an input, too; choose another output")
    recordings = _each_channel(recordings, failures)
    recordings = [dataclasses.replace(r, stamp=stamp_of(r)) for r in recordings]
    folder = output.with_name(f"{output.name}.partial")
    width = model.timestamp_embedding_size if settings.timestamps else model.scene_embedding_size
    # A format that cannot be read back cannot be extended.
    replaces = overwrite or (not format_.readable and not output.exists())
    store = Store(folder, settings.stored(), width, plan.timeline, overwrite, replaces)
    finished = begun = False
    try:
        base = _existing(output, format_, store.replaces)
        if base is not None:
            require_same(output, base.settings, settings.stored())
        tables = [store.table()] if base is None else [base, store.table()]
        found = {tuple(done.key): done for table in tables for done in table.recordings}
        names = format_.check_names(output, recordings, found.values())
        failures += [recordings[i].failure(reason) for i, reason in names.items()]
        recordings = [r for i, r in enumerate(recordings) if i not in names]
        rest = [r for r in recordings if r.key not in found or found[r.key].stamp != r.stamp]
        rest.sort(key=lambda recording: store.resume(recording) is None)  # an incomplete one first
        earlier = len(recordings) - len(rest)
        progress = Progress(len(recordings), earlier, model.sample_rate)
        flushed, begun = time.monotonic(), True
        try:
            with closing(embed(rest, plan, store.resume(rest[0]) if rest else None)) as events:
                for event in events:
                    with interrupts_held(), _explained(output, folder, overwrite):
                        if isinstance(event, Result):
                            store.add(event)
                        else:
                            store.drop(event[0])
                            failures.append(event[1])
                        progress.update(event)
                        if flush_minutes and time.monotonic() - flushed > 60 * flush_minutes:
                            base = _write(output, format_, base, store.table(), recordings)
                            flushed = time.monotonic()
        finally:  # also on Ctrl-C, so that the output holds every complete recording
            progress.close()
            with _explained(output, folder, overwrite):
                _write(output, format_, base, store.table(), recordings)
        with _explained(failures_file, folder, overwrite):
            listed = rewrite(output, failures, (recording.where for recording in recordings))
        finished = True
    finally:  # a new run that was refused leaves no folder
        store.close(remove=finished or (store.new and not begun))
    return Summary(
        len(recordings) + len(names),
        earlier + progress.done,
        earlier,
        failures,
        listed,
        left_out,
        progress.seconds,
        progress.speed,
    )


def is_source(output: Path, sources: Any) -> bool:
    """Whether the output is a list among the sources. Audio files have other endings."""
    several = isinstance(sources, Sequence) and not isinstance(sources, str)
    paths = [x for x in (sources if several else [sources]) if isinstance(x, (str, os.PathLike))]
    return output.is_file() and any(os.path.isfile(x) and output.samefile(x) for x in paths)


def _existing(output: Path, format_: Format, replaces: bool) -> Table | None:
    """The content of an existing output, to be extended; None if there is none to extend.

    Raises:
        ValueError: this package did not write it, or it is damaged.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if replaces and not output.is_dir():  # a folder with other files is not replaced
        return None
    try:
        table = format_.read(output)
    except ValueError as error:
        # --overwrite does not clear a folder of other files, so the message does not offer it.
        way = "" if output.is_dir() else ", or pass --overwrite"
        raise ValueError(
            f"{printable(output)} exists and cannot be continued: {error}; choose another "
            f"output{way}"
        ) from error
    return None if replaces else table


def _write(
    output: Path, format_: Format, base: Table | None, new: Table, recordings: Sequence[Recording]
) -> Table | None:
    """Write the output: recordings of earlier runs first, then the input in its order.

    Args:
        base: the content of the existing output, which is extended; None if it is replaced.
        new: what this run has embedded.
        recordings: the input.

    Returns:
        The argument `base` of the next time.

    Raises:
        OSError: the output cannot be written, or not be read back.
    """
    tables = [new] if base is None else [base, new]
    asked = {recording.key: recording for recording in recordings}
    places = {
        tuple(done.key): (t, i)
        for t, table in enumerate(tables)
        for i, done in enumerate(table.recordings)
    }
    order = [key for key in places if key not in asked] + [key for key in asked if key in places]
    if not order:
        return base
    table = combined(tables, [places[key] for key in order])
    for i, key in enumerate(order):
        if (recording := asked.get(key)) is not None:
            path, columns = printable(recording.path), dict(recording.columns)
            stamp = table.recordings[i].stamp
            table.recordings[i] = Done(list(key), path, recording.name, stamp, columns)
    if base is not None and table.to_json() == base.to_json():
        return base
    format_.write(output, table)
    if not format_.readable:
        return None
    try:  # it must be complete, because the store is removed afterwards
        written = format_.read(output)
    except ValueError as error:
        raise OSError(f"it cannot be read back: {error}") from error
    if written.total_rows != table.total_rows:
        raise OSError(f"it holds {written.total_rows} rows instead of {table.total_rows}")
    # Rows of earlier runs have other places in the file that was written.
    return None if base is None else written


def _each_channel(recordings: Iterable[Recording], failures: list[Failure]) -> list[Recording]:
    """Replace recordings with the channel "each" by one recording per channel."""
    found: list[Recording] = []
    for recording in recordings:
        if recording.channel != "each":
            found.append(recording)
            continue
        try:
            with local_copy(recording.where) as path:
                channels = count_channels(path)
        except (OSError, ValueError) as error:
            failures.append(recording.failure(error))
            continue
        found += [dataclasses.replace(recording, channel=c) for c in range(channels)]
    return found


@contextmanager
def _explained(output: Path, folder: Path, overwrite: bool) -> Iterator[None]:
    """If the output cannot be written, say where the results are kept."""
    try:
        yield
    except OSError as error:
        again = "repeat the command without --overwrite" if overwrite else "repeat the command"
        path = error.filename2 or output  # the first is that of a file which cannot be replaced
        raise OSError(
            f"{printable(path)} cannot be written: {error.strerror or error}; the results so far "
            f"are kept in {printable(folder)}, make room and {again}"
        ) from error
