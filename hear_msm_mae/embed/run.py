"""Embed recordings into a file; an interrupted run goes on when it is repeated."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

from ..config import SAMPLE_RATE
from ..files import interrupts_held, printable
from ..model import HearModel
from .cut import Plan, make_plan
from .inputs import Failure, Task, find_tasks
from .outputs import NpyFolder, check_names, format_of
from .pipeline import Resume, embed_batches
from .progress import Progress
from .remote import remove_remote, replacing_remote
from .settings import Settings
from .target import Target


@dataclasses.dataclass
class Summary:
    """What became of a run.

    Attributes:
        files: recordings that were asked for; done: those that are in the output now.
        earlier: those of `done` that earlier runs embedded.
        failures: what could not be read; failures_file: where that is listed, if there is any.
        seconds: audio read by this run; speed: times real time.
    """

    files: int
    done: int
    earlier: int
    failures: list[Failure]
    failures_file: str | None
    seconds: float
    speed: float


def embed_to(
    output: str | Path,
    sources: Sequence[str | Path | Task],
    model: HearModel,
    settings: Settings,
    batch_seconds: float | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Embed recordings into a file or folder.

    Args:
        output: what to write; its ending says the format (see `format_of`).
        sources: see `hear_msm_mae.embed.inputs.find_tasks`.
        model: loaded as the settings say, on any device.
        settings: stored with the output.
        batch_seconds, workers: see `embed_batches`.
        overwrite: start from scratch whatever is there.

    Files that cannot be read go to `OUT.errors.csv`. Whatever happens, what was computed up to
    the last batch is in the output or in `OUT.partial`, and the same call goes on from there.

    Raises:
        ValueError: bad options or sources; an output with other settings, or of somebody else.
        OSError: the output cannot be written.
    """
    format_ = format_of(output)
    format_.check()
    problems: list[Failure] = []
    tasks = find_tasks(sources, problems)
    if isinstance(format_, NpyFolder):  # the stretches of a file one behind the other
        order = {path: i for i, path in enumerate(dict.fromkeys(task.path for task in tasks))}
        tasks.sort(key=lambda task: order[task.path])
        check_names(tasks)
    plan = make_plan(model, settings.timestamps, settings.segment, settings.overlap)
    target = Target(Path(output), format_, plan, settings.stored(tasks), model)
    target.open(tasks, overwrite)
    try:
        rest, earlier = target.missing(tasks)
        resume = target.resume(rest)
        progress = Progress(rest, earlier, _seconds(resume, rest, plan))
        try:
            batches = embed_batches(
                rest, model, plan, settings.dtype, batch_seconds, workers, resume
            )
            for batch in batches:
                with interrupts_held():
                    target.append(rest, batch)
                progress.update(batch)
        finally:
            progress.close()
        failures = problems + target.finish(tasks)
        listed = write_failures(output, failures)
    finally:
        target.close()
    done = len(tasks) - (len(failures) - len(problems))
    return Summary(len(tasks), done, earlier, failures, listed, progress.seconds, progress.speed)


def write_failures(output: str | Path, failures: Sequence[Failure]) -> str | None:
    """Write `OUT.errors.csv`, local or remote, or remove an earlier one when there are none."""
    path = f"{os.fspath(output).rstrip('/')}.errors.csv"
    if not failures:
        remove_remote(path)
        return None
    with replacing_remote(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(file)
        writer.writerow(Failure._fields)
        for failure in failures:
            end = "" if failure.end is None else failure.end
            writer.writerow((printable(failure.path), failure.start, end, failure.reason))
        file.detach()
    return path


def _seconds(resume: Resume | None, tasks: list[Task], plan: Plan) -> float:
    """How far the first task is, for the progress bar."""
    if resume is None or not tasks:
        return 0.0
    frames = resume.group * plan.config.unit_frames
    return tasks[0].start + (resume.clip * (plan.step or 0)) / SAMPLE_RATE + frames / 100
