"""Run hear-eval-kit's two stages on tasks, one process each, and collect scores and costs."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from weights.corpus.packages import sha256

from . import results
from .check import check_task
from .kit import CHECKOUT, KIT_VERSION, Cost, HearError, last_line, run_logged
from .results import Result, write_json
from .task import Task, read_task, task_folders

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
    delete_embeddings: bool = False

    @property
    def arguments(self) -> list[str]:
        """Module, weights and options, as stage 1 and `benchmarks.hear.module` take them."""
        arguments = [self.module]
        if self.weights:
            arguments += ["--model", str(self.weights.resolve())]
        if self.options:
            arguments += ["--model-options", json.dumps(dict(self.options))]
        return arguments


def run(request: Request) -> tuple[Path, list[Result]]:
    """Embed, train and score; what is done with the same settings is not done again.

    Returns:
        the run's folder, and a result per task, also for those that failed.

    Raises:
        HearError: nothing was run, because the tasks or the module are unusable.
    """
    if importlib.util.find_spec("heareval") is None:
        python = CHECKOUT / ".venv-hear/bin/python"
        raise HearError(f"hear-eval-kit is missing: run `make hear-env`, then this with {python}")
    folders = task_folders(request.tasks_dir, request.tasks)
    module = _tried(request)
    problems = [line for path in folders for line in check_task(path, module["sample_rate"])]
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise HearError(f"{len(problems)} problem(s) in {request.tasks_dir}, nothing was run")
    # Everything but the task that the embeddings depend on.
    settings = {
        **module,
        "weights_sha256": sha256(request.weights) if request.weights else None,
        "options": dict(request.options),
        "heareval": KIT_VERSION,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = request.runs_dir.resolve() / f"{request.module}-{digest}"
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            write_json(folder / "settings.json", settings)
            return folder, _run_tasks(request, folder, folders, module["sample_rate"])
    except Timeout as error:
        raise HearError(f"another run is at work in {folder}") from error


def _tried(request: Request) -> dict[str, Any]:
    """What `benchmarks.hear.module` says about the module."""
    if request.weights is not None and not request.weights.is_file():
        raise HearError(f"no weights file at {request.weights}")
    request.runs_dir.mkdir(parents=True, exist_ok=True)
    report, log_path = request.runs_dir / "module.json", request.runs_dir / "module.log"
    arguments = ["-m", "benchmarks.hear.module", str(report.resolve()), *request.arguments]
    status, _ = run_logged(arguments, log_path, request.runs_dir)
    if status != 0:
        how = f"{last_line(log_path)} (exit status {status}, see {log_path})"
        raise HearError(f"{request.module} does not follow the HEAR API: {how}")
    return dict(json.loads(report.read_text()))


def _run_tasks(request: Request, folder: Path, tasks: list[Path], rate: int) -> list[Result]:
    log.info("%s: %d task(s), logs and results in %s", request.module, len(tasks), folder)
    found: dict[str, Result] = {}
    # Tasks that earlier runs with the same settings have scored stay in the table.
    for path in folder.glob(f"*/{_result_name(request)}"):
        found[path.parent.name] = Result(**json.loads(path.read_text()))
    for number, path in enumerate(tasks, start=1):
        label = f"[{number}/{len(tasks)}] {path.name}"
        found[path.name] = _run_task(request, folder / path.name, read_task(path), rate, label)
        # The table is written after each task, because the run may be interrupted.
        results.write(folder, [found[name] for name in sorted(found)])
    return [found[name] for name in sorted(found)]


# ---------------------------------------------------------------------------------------------
# One task
# ---------------------------------------------------------------------------------------------
class StageFailed(Exception):
    """A stage of one task did not work; the others still run."""


def _result_name(request: Request) -> str:
    return f"result-{request.grid}-{request.grid_points}.json"


def _run_task(request: Request, folder: Path, task: Task, rate: int, label: str) -> Result:
    """Both stages, or what is missing of them; `folder` holds all that is known of the task."""
    version, digest = folder / "task.sha256", task.digest(rate)
    if not version.is_file() or version.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        version.write_text(digest)
    result_path = folder / _result_name(request)
    if result_path.is_file():
        log.info("%s: done before", label)
        return Result(**json.loads(result_path.read_text()))
    costs: list[Cost] = []
    try:
        embeddings, cost = _embed(request, folder, task)
        costs.append(cost)
        scores, cost = _score(request, folder, embeddings)
        costs.append(cost)
    except StageFailed as error:
        log.error("%s: FAILED, %s", label, error)
        return Result(
            task.folder.name, task.metadata["evaluation"][0], costs=costs, error=str(error)
        )
    result = results.scored(task, scores, costs)
    write_json(result_path, dataclasses.asdict(result))
    if request.delete_embeddings:
        (folder / "embedded.json").unlink()
        shutil.rmtree(folder / "embeddings")
    log.info("%s: %s %.1f", label, result.metric, result.scores[result.metric])
    return result


def _embed(request: Request, folder: Path, task: Task) -> tuple[Path, Cost]:
    """Stage 1, unless it was done: the folder of the embeddings, and the cost."""
    mark = folder / "embedded.json"
    if not mark.is_file():
        tasks_dir = str(task.folder.parent.resolve())
        arguments = [*request.arguments, "--tasks-dir", tasks_dir, "--task", task.folder.name]
        cost = _stage(folder, 1, "heareval.embeddings.runner", arguments)
        for path in sorted(folder.glob("embeddings/*/*/*/*.embedding.npy")):
            if not np.isfinite(np.load(path)).all():  # the kit would not name the file
                name = f"{path.parent.name}/{path.name.removesuffix('.embedding.npy')}"
                raise StageFailed(f"the embedding of {name} holds NaN or infinity")
        write_json(mark, cost)
    [embeddings] = folder.glob("embeddings/*/*")  # below a name made of module and options
    return embeddings, json.loads(mark.read_text())


def _score(request: Request, folder: Path, embeddings: Path) -> tuple[dict[str, Any], Cost]:
    """Stage 2: the scores as the kit writes them, and the cost."""
    scores = embeddings / "test.predicted-scores.json"
    for other_grid in (scores, embeddings / "prediction-done.json"):
        other_grid.unlink(missing_ok=True)
    # A relative path, because the kit writes its logs below logs/<this path>.
    arguments = [str(embeddings.relative_to(folder)), "--grid", request.grid]
    arguments += ["--grid-points", str(request.grid_points)]
    cost = _stage(folder, 2, "heareval.predictions.runner", arguments)
    return json.loads(scores.read_text()), cost


def _stage(folder: Path, number: int, module: str, arguments: list[str]) -> Cost:
    """Run a program of the kit."""
    log_path = folder / f"stage{number}.log"
    status, cost = run_logged(["-m", module, *arguments], log_path, folder)
    if status != 0:
        raise StageFailed(
            f"stage {number}: {last_line(log_path)} (status {status}, see {log_path})"
        )
    log.info("%s: stage %d in %.0f s", folder.name, number, cost["s"])
    return cost
