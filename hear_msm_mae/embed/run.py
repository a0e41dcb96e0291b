"""Embed recordings into a file. The same call continues an interrupted run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..audio import count_channels
from ..files import interrupts_held, printable
from ..model import HearModel
from .cutting import Plan, Resume, make_plan
from .failures import rewrite, settled_name
from .formats import format_of
from .output import Output, existing_table
from .pieces import Result, embed_recordings
from .progress import Progress
from .remote import local_copy
from .settings import Settings, require_same
from .sources import Failure, Recording, find_recordings
from .store import Store

Events = Generator[Result | tuple[Recording, Failure], None, None]
Embed = Callable[[Sequence[Recording], Plan, Resume | None], Events]


@dataclasses.dataclass
class Summary:
    """The result of a run.

    Attributes:
        files: number of recordings in the input.
        done: number of them that are in the output now.
        earlier: number of them that earlier runs embedded.
        failures: the recordings and folders that could not be read.
        failures_file: the list of all failures of the output; None if there are none.
        left_out: files in folders that are not audio.
        seconds: seconds of audio that this run embedded.
        speed: seconds of audio per second.
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

    Recordings that cannot be read are listed in `OUT.errors.csv`. Until the run is complete, its
    results are kept in `OUT.partial`, so the same call continues a run that was killed.

    Args:
        output: file or folder to write; its ending selects the format (`formats.format_of`).
        sources: see `hear_msm_mae.embed.sources.find_recordings`.
        model: the model of `settings`, on any device.
        settings: from `settings_of`; stored with the output.
        channel: "mix", "left", "right", a number, or "each" for an embedding of every channel.
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
    # A format that cannot be read back cannot be extended.
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
            base = existing_table(output, format_)
            if base is not None:
                require_same(output, base.settings, settings.stored())
        elif output.is_dir():
            existing_table(output, format_)  # refuses to replace a folder with other files
        known = [*(base.recordings if base else ()), *store.table().recordings]
        names = format_.check_names(output, recordings, known)
        failures += [_failure(recordings[i], reason) for i, reason in names.items()]
        recordings = [r for i, r in enumerate(recordings) if i not in names]
        job = Output(output, format_, store, base, recordings)
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
        finally:  # also on Ctrl-C, so that the output holds every complete recording
            progress.close()
            with _explained(output, folder, overwrite):
                job.write()
        settled = {settled_name(recording.where) for recording in recordings}
        with _explained(output, folder, overwrite):
            listed = rewrite(output, failures, settled)
        finished = True
    finally:  # a new run that was refused leaves no folder
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


def _each_channel(recordings: Iterable[Recording], failures: list[Failure]) -> list[Recording]:
    """Replace recordings with the channel "each" by one recording per channel."""
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
    """If the output cannot be written, say where the results are kept."""
    try:
        yield
    except OSError as error:
        again = "repeat the command without --overwrite" if overwrite else "repeat the command"
        raise OSError(
            f"{printable(output)} cannot be written: {error.strerror or error}; the results so far "
            f"are kept in {printable(folder)}, make room and {again}"
        ) from error
