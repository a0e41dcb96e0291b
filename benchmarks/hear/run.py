"""Run hear-eval-kit's two stages on tasks, one process each, and collect scores and costs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hear_msm_mae.files import replacing
from weights.corpus.packages import sha256

from . import results
from .check import check_tasks
from .check_files import check_embeddings
from .kit import KIT_VERSION, Cost, HearError, kit_python, last_line, run_logged
from .results import Result
from .tasks_format import Task, read_task, task_folders

log = logging.getLogger("hear")

EMBED, SCORE = 1, 2  # the kit's stages


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
        """Module, weights and options, as stage 1 and `probe` take them."""
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
    kit_python()
    _stop_at_problems(request, rate=None)
    request.runs_dir.mkdir(parents=True, exist_ok=True)
    report = _probed(request)
    _stop_at_problems(request, rate=report["sample_rate"])
    # Everything but the task that the embeddings depend on.
    settings = {
        "module": request.module,
        "version": report["version"],
        "weights_sha256": sha256(request.weights) if request.weights else None,
        "model_digest": report["model_digest"],
        "options": dict(request.options),
        "sample_rate": report["sample_rate"],
        "heareval": KIT_VERSION,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = request.runs_dir.resolve() / f"{request.module}-{digest}"
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            write_json(folder / "settings.json", {**settings, **report})
            return folder, _run_tasks(request, settings, folder)
    except Timeout as error:
        raise HearError(f"another run is at work in {folder}") from error


def _stop_at_problems(request: Request, rate: int | None) -> None:
    problems = check_tasks(request.tasks_dir, request.tasks, rate)
    for problem in problems:
        if not problem.harmless:
            log.error("%s", problem)
        elif rate is None:
            log.warning("%s", problem)
    if count := sum(not problem.harmless for problem in problems):
        raise HearError(f"{count} problem(s) in {request.tasks_dir}, nothing was run")


def _probed(request: Request) -> dict[str, Any]:
    """Load the module once and try it; returns what `probe` found out.

    Raises:
        HearError: it does not follow the HEAR API.
    """
    if request.weights is not None and not request.weights.is_file():
        raise HearError(f"no weights file at {request.weights}")
    report, log_path = request.runs_dir / "probe.json", request.runs_dir / "probe.log"
    report.unlink(missing_ok=True)
    arguments = ["-m", "benchmarks.hear.probe", str(report.resolve()), *request.arguments]
    status, _ = run_logged([kit_python(), *arguments], log_path, request.runs_dir)
    try:
        content: dict[str, Any] = json.loads(report.read_text())
    except FileNotFoundError as error:
        message = f"{request.module} ended the process that tried it ({status})"
        raise HearError(f"{message}: {last_line(log_path)} (see {log_path})") from error
    if "error" in content:
        raise HearError(f"{content['error']} (stack trace: {log_path})")
    return content


def _run_tasks(request: Request, settings: Mapping[str, Any], folder: Path) -> list[Result]:
    everything = task_folders(request.tasks_dir)
    chosen = [path for path in everything if path.name in (request.tasks or [path.name])]
    log.info("%s: %d task(s), logs and results in %s", request.module, len(chosen), folder)
    found: dict[str, Result] = {}
    for path in everything:
        if path not in chosen and (known := _known(request, settings, folder, path)):
            found[path.name] = known
    for number, path in enumerate(chosen, start=1):
        label = f"[{number}/{len(chosen)}] {path.name}"
        found[path.name] = Job(request, settings, folder, read_task(path), label).run()
        # The table is written after each task, because the run may be interrupted.
        results.write(folder, request.module, [found[name] for name in sorted(found)])
    return [found[name] for name in sorted(found)]


def _known(
    request: Request, settings: Mapping[str, Any], folder: Path, path: Path
) -> Result | None:
    """The result of a task that an earlier run with the same settings has scored."""
    try:
        return Job(request, settings, folder, read_task(path)).known()
    except (OSError, ValueError, KeyError):
        return None  # a task that was not asked for may be broken


# ---------------------------------------------------------------------------------------------
# One task
# ---------------------------------------------------------------------------------------------
class StageFailed(Exception):
    """A stage of one task did not work; the others still run."""


@dataclass(frozen=True)
class Job:
    """A task of a run. When a stage is done, a mark beside its log says so, with its settings."""

    request: Request
    model_settings: Mapping[str, Any]
    folder: Path
    """Of the run; the kit writes into it."""
    task: Task
    label: str = ""

    @property
    def where(self) -> Path:
        """Folder of the marks and the logs."""
        return self.folder / "tasks" / self.task.name

    @cached_property
    def settings(self) -> dict[int, dict[str, Any]]:
        """What the embeddings depend on, and what the scores do, by stage."""
        task = self.task.digest(self.model_settings["sample_rate"])
        first = {**self.model_settings, "task": task}
        grid = {"grid": self.request.grid, "grid_points": self.request.grid_points}
        return {EMBED: first, SCORE: {**first, **grid}}

    def known(self) -> Result | None:
        """The result, if it is there already."""
        marks = [self._mark(stage) for stage in (EMBED, SCORE)]
        if marks[1] is None:
            return None
        costs = [Cost(**mark["cost"]) for mark in marks if mark]
        return results.scored(self.task, marks[1]["scores"], costs)

    def run(self) -> Result:
        """Both stages, or what is missing of them."""
        self.where.mkdir(parents=True, exist_ok=True)
        costs: list[Cost] = []
        try:
            scored = self._mark(SCORE)
            mark = self._mark(EMBED)
            if mark is None or not (scored or self._embeddings()):
                mark = self._embed()
            costs.append(Cost(**mark["cost"]))
            mark = scored or self._score()
            costs.append(Cost(**mark["cost"]))
        except StageFailed as error:
            log.error("%s: FAILED, %s", self.label, error)
            return results.failed(self.task, str(error), costs)
        if self.request.delete_embeddings and (embeddings := self._embeddings()):
            shutil.rmtree(embeddings)
        result = results.scored(self.task, mark["scores"], costs)
        before = " (done before)" if scored else ""
        log.info("%s: %s %.1f%s", self.label, self.task.score, result.score, before)
        return result

    def _embed(self) -> dict[str, Any]:
        # The kit skips what it finished, whatever it was made with: what is here is not ours.
        if embeddings := self._embeddings():
            shutil.rmtree(embeddings)
        tasks_dir = str(self.task.folder.parent.resolve())
        arguments = [*self.request.arguments, "--tasks-dir", tasks_dir, "--task", self.task.name]
        mark = self._stage(EMBED, "heareval.embeddings.runner", arguments)
        embeddings = self._embeddings()
        if embeddings is None:
            raise StageFailed(f"stage 1 wrote no embeddings, see {self.where / 'stage1.log'}")
        if problems := check_embeddings(self.task, embeddings):
            shutil.rmtree(embeddings)
            raise StageFailed("; ".join(map(str, problems)))
        write_json(self.where / "stage1.json", mark)
        return mark

    def _score(self) -> dict[str, Any]:
        embeddings = self._embeddings()
        if embeddings is None:
            raise StageFailed(f"the embeddings are gone from {self.folder / 'embeddings'}")
        scores = embeddings / "test.predicted-scores.json"
        for stale in (scores, embeddings / "prediction-done.json"):
            stale.unlink(missing_ok=True)
        # Relative: the kit puts its own logs below logs/<this path>.
        arguments = [str(embeddings.relative_to(self.folder)), "--grid", self.request.grid]
        arguments += ["--grid-points", str(self.request.grid_points)]
        mark = self._stage(SCORE, "heareval.predictions.runner", arguments)
        if not scores.is_file():
            raise StageFailed(f"stage 2 wrote no scores, see {self.where / 'stage2.log'}")
        mark["scores"] = json.loads(scores.read_text())
        write_json(self.where / "stage2.json", mark)
        return mark

    def _stage(self, stage: int, module: str, arguments: list[str]) -> dict[str, Any]:
        """Run a program of the kit; returns what the mark will say."""
        log_path = self.where / f"stage{stage}.log"
        log_path.with_suffix(".json").unlink(missing_ok=True)
        status, cost = run_logged([kit_python(), "-m", module, *arguments], log_path, self.folder)
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
            raise StageFailed(f"{how}: {last_line(log_path)} (see {log_path})")
        values = dataclasses.asdict(cost)
        text = "%s: stage %d: %.0f s (CPU %.0f s), %.0f MB"
        log.info(text, self.label, stage, *values.values())
        return {"settings": self.settings[stage], "cost": values}

    def _mark(self, stage: int) -> dict[str, Any] | None:
        """What the mark of a stage says; None if there is none, or one of other settings."""
        try:
            mark: dict[str, Any] = json.loads((self.where / f"stage{stage}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return mark if mark.get("settings") == self.settings[stage] else None

    def _embeddings(self) -> Path | None:
        """Where the kit put the embeddings, below a name made of module and options."""
        found = (self.folder / "embeddings").glob(f"*/{self.task.name}")
        return next((path for path in found if path.is_dir()), None)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
