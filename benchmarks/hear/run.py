"""Run hear-eval-kit's two stages on tasks, one process each, and collect scores and costs."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from weights.corpus.packages import sha256

from . import results
from .check import check_tasks
from .embeddings import check_embeddings
from .kit import KIT_VERSION, HearError, kit_python, last_line, run_logged
from .marks import done, short_digest, write_json
from .results import Result, StageCost
from .tasks_format import Task, read_task, task_folders

log = logging.getLogger("hear")


@dataclass(frozen=True)
class Request:
    """What to run: see the options of `python -m benchmarks.hear run`."""

    module: str
    tasks_dir: Path
    weights: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] | None = None
    grid: str = "default"
    grid_points: int = 8
    runs_dir: Path = Path("runs/hear")
    python: Path | None = None
    delete_embeddings: bool = False


class StageFailed(Exception):
    """A stage of one task did not work; the others still run."""


@dataclass(frozen=True)
class Model:
    """The module that is being benchmarked."""

    request: Request
    python: Path
    report: Mapping[str, Any]
    """What `probe` found out."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the task that the embeddings depend on."""
        weights = self.request.weights
        return {
            "module": self.request.module,
            "version": self.report["version"],
            "weights_sha256": sha256(weights) if weights else None,
            "model_digest": self.report["model_digest"],
            "options": dict(self.request.options),
            "sample_rate": self.report["sample_rate"],
            "heareval": KIT_VERSION,
        }

    @property
    def arguments(self) -> list[str]:
        """Module, weights and options, as stage 1 and `probe` take them."""
        arguments = [self.request.module]
        if self.request.weights:
            arguments += ["--model", str(self.request.weights.resolve())]
        if self.request.options:
            arguments += ["--model-options", json.dumps(dict(self.request.options))]
        return arguments


def run(request: Request) -> tuple[Path, list[Result]]:
    """Embed, train and score; what is done with the same settings is not done again.

    Returns:
        the run's folder, and a result per task, also for those that failed.

    Raises:
        HearError: nothing was run, because the tasks or the module are unusable.
    """
    python = kit_python(request.python)
    _stop_at_problems(request, rate=None)
    request.runs_dir.mkdir(parents=True, exist_ok=True)
    model = _probed(request, python)
    _stop_at_problems(request, rate=model.report["sample_rate"])
    settings = model.settings
    folder = request.runs_dir.resolve() / f"{request.module}-{short_digest(settings)}"
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            write_json(folder / "settings.json", {**settings, **model.report})
            return folder, _run_tasks(model, folder)
    except Timeout as error:
        raise HearError(f"another run is at work in {folder}") from error


def _run_tasks(model: Model, folder: Path) -> list[Result]:
    request = model.request
    everything = task_folders(request.tasks_dir)
    chosen = [p for p in everything if p.name in (request.tasks or [p.name])]
    log.info("%s: %d task(s), logs and results in %s", request.module, len(chosen), folder)
    known = [_known(model, path, folder) for path in everything if path not in chosen]
    found = {result.task: result for result in known if result is not None}
    for number, path in enumerate(chosen, start=1):
        task = read_task(path)
        where = folder / "tasks" / task.name
        where.mkdir(parents=True, exist_ok=True)
        label = f"[{number}/{len(chosen)}] {task.name}"
        found[task.name] = _run_task(model, task, folder, where, label)
        # What is there, if this is interrupted.
        results.write(folder, request.module, [found[name] for name in sorted(found)])
    return [found[name] for name in sorted(found)]


def _known(model: Model, path: Path, folder: Path) -> Result | None:
    """The result of a task that an earlier run with the same settings has scored."""
    try:
        task = read_task(path)
        first, second = _settings(model, task)
        marks = [
            done(folder / "tasks" / task.name / name, settings)
            for name, settings in (("stage1.json", first), ("stage2.json", second))
        ]
        costs = [StageCost(**mark["cost"]) for mark in marks if mark]
        return results.scored(task, marks[1]["scores"], costs) if marks[1] else None
    except (OSError, ValueError, KeyError):
        return None  # a task that was not asked for may be broken


def _settings(model: Model, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the embeddings depend on, and what the scores do."""
    first = {**model.settings, "task": task.digest(model.report["sample_rate"])}
    request = model.request
    return first, {**first, "grid": request.grid, "grid_points": request.grid_points}


def _run_task(model: Model, task: Task, folder: Path, where: Path, label: str) -> Result:
    costs: list[StageCost] = []
    try:
        first, second = _settings(model, task)
        scored = done(where / "stage2.json", second)
        embedded = _stage_1(model, task, folder, where, label, first, scored is not None)
        costs.append(StageCost(**embedded["cost"]))
        mark = scored or _stage_2(model, task, folder, where, label, second)
        costs.append(StageCost(**mark["cost"]))
    except StageFailed as error:
        log.error("%s: FAILED, %s", label, error)
        return results.failed(task, str(error), costs)
    if model.request.delete_embeddings and (embeddings := _embeddings(folder, task)):
        shutil.rmtree(embeddings)
    result = results.scored(task, mark["scores"], costs)
    before = " (done before)" if scored else ""
    log.info("%s: %s %.1f%s", label, task.score, result.score, before)
    return result


def _stage_1(
    model: Model, task: Task, folder: Path, where: Path, label: str, settings: dict[str, Any],
    scored: bool,
) -> dict[str, Any]:  # fmt: skip
    mark_path = where / "stage1.json"
    mark = done(mark_path, settings)
    if mark and (scored or _embeddings(folder, task)):
        return mark
    # The kit skips what it finished, whatever it was made with: what is here is not ours.
    mark_path.unlink(missing_ok=True)
    if embeddings := _embeddings(folder, task):
        shutil.rmtree(embeddings)
    arguments = ["--tasks-dir", str(task.folder.parent.resolve()), "--task", task.name]
    cost = _stage(
        model.python, "heareval.embeddings.runner", [*model.arguments, *arguments],
        where / "stage1.log", folder, f"{label}: stage 1",
    )  # fmt: skip
    embeddings = _embeddings(folder, task)
    if embeddings is None:
        raise StageFailed(f"stage 1 wrote no embeddings, see {where / 'stage1.log'}")
    if problems := check_embeddings(task, embeddings):
        shutil.rmtree(embeddings)
        raise StageFailed("; ".join(map(str, problems)))
    mark = {"settings": settings, "cost": dataclasses.asdict(cost)}
    write_json(mark_path, mark)
    return mark


def _stage_2(
    model: Model, task: Task, folder: Path, where: Path, label: str, settings: dict[str, Any]
) -> dict[str, Any]:
    mark_path = where / "stage2.json"
    mark_path.unlink(missing_ok=True)
    embeddings = _embeddings(folder, task)
    if embeddings is None:
        raise StageFailed(f"the embeddings are gone from {folder / 'embeddings'}")
    scores = embeddings / "test.predicted-scores.json"
    for stale in (scores, embeddings / "prediction-done.json"):
        stale.unlink(missing_ok=True)
    # Relative: the kit puts its own logs below logs/<this path>.
    arguments = [str(embeddings.relative_to(folder)), "--grid", model.request.grid]
    arguments += ["--grid-points", str(model.request.grid_points)]
    cost = _stage(
        model.python, "heareval.predictions.runner", arguments,
        where / "stage2.log", folder, f"{label}: stage 2",
    )  # fmt: skip
    if not scores.is_file():
        raise StageFailed(f"stage 2 wrote no scores, see {where / 'stage2.log'}")
    mark = {"settings": settings, "cost": dataclasses.asdict(cost)}
    mark["scores"] = json.loads(scores.read_text())
    write_json(mark_path, mark)
    return mark


def _stage(
    python: Path, module: str, arguments: list[str], log_path: Path, folder: Path, label: str
) -> StageCost:
    finished = run_logged([str(python), "-m", module, *arguments], log_path, folder)
    if finished.status != 0:
        status = finished.status
        how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        raise StageFailed(f"{how}: {last_line(log_path)} (see {log_path})")
    cost = StageCost(finished.seconds, finished.cpu_seconds, finished.peak_mb)
    log.info("%s: %.0f s (CPU %.0f s), %.0f MB", label, *dataclasses.astuple(cost))
    return cost


def _embeddings(folder: Path, task: Task) -> Path | None:
    """Where the kit put a task's embeddings, below a name made of module and options."""
    found = [path for path in (folder / "embeddings").glob(f"*/{task.name}") if path.is_dir()]
    return found[0] if found else None


def _probed(request: Request, python: Path) -> Model:
    """Load the module once and try it.

    Raises:
        HearError: it does not follow the HEAR API.
    """
    if request.weights is not None and not request.weights.is_file():
        raise HearError(f"no weights file at {request.weights}")
    report, log_path = request.runs_dir / "probe.json", request.runs_dir / "probe.log"
    report.unlink(missing_ok=True)
    model = Model(request, python, {})
    arguments = [str(report.resolve()), *model.arguments]
    words = [str(python), "-m", "benchmarks.hear.probe", *arguments]
    finished = run_logged(words, log_path, request.runs_dir)
    try:
        content = json.loads(report.read_text())
    except FileNotFoundError as error:
        message = f"{request.module} ended the process that tried it ({finished.status})"
        raise HearError(f"{message}: {last_line(log_path)} (see {log_path})") from error
    if "error" in content:
        raise HearError(f"{content['error']} (stack trace: {log_path})")
    return Model(request, python, content)


def _stop_at_problems(request: Request, rate: int | None) -> None:
    problems = check_tasks(request.tasks_dir, request.tasks, rate)
    for problem in problems:
        if not problem.harmless:
            log.error("%s", problem)
        elif rate is None:
            log.warning("%s", problem)
    if count := sum(not problem.harmless for problem in problems):
        raise HearError(f"{count} problem(s) in {request.tasks_dir}, nothing was run")
