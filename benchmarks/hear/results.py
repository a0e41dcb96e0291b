"""Scores and costs of a run as CSV and Markdown, beside the published ones of official tasks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hear_msm_mae.files import replacing

from .tasks_format import NOT_SHARES, Task

LEADERBOARD = Path(__file__).with_name("leaderboard.csv")


@dataclass(frozen=True)
class StageCost:
    """Wall time and processor time of a stage, and the largest resident size of its process."""

    seconds: float
    cpu_seconds: float
    peak_mb: float

    def cells(self, digits: int = 0) -> list[str]:
        """Under `COSTS`."""
        times = (f"{self.seconds:.{digits}f}", f"{self.cpu_seconds:.{digits}f}")
        return [*times, f"{self.peak_mb:.0f}"]


COSTS = [f"stage {stage} {unit}" for stage in (1, 2) for unit in ("s", "CPU s", "MB")]


@dataclass(frozen=True)
class Result:
    """A task's score in percent, or why there is none."""

    task: str
    official: str | None
    """The task's name in the leaderboard."""
    metric: str
    score: float = math.nan
    spread: float | None = None
    """Standard deviation over the folds."""
    costs: tuple[StageCost, ...] = ()
    error: str = ""
    scores: Mapping[str, float] | None = None
    """All scores of the task, in percent."""

    @property
    def ok(self) -> bool:
        return not self.error


def scored(task: Task, content: Mapping[str, Any], costs: Sequence[StageCost]) -> Result:
    """Read the kit's test.predicted-scores.json."""
    folds = "aggregated_scores" in content
    values = content["aggregated_scores" if folds else "test"]
    ending = "_mean" if folds else ""
    scores = {
        metric: percent(metric, values[f"test_{metric}{ending}"])
        for metric in task.metadata["evaluation"]
    }
    spread = 100 * values[f"test_{task.score}_std"] if folds else None
    return Result(
        task.name, official_name(task), task.score, scores[task.score], spread, tuple(costs),
        scores=scores,
    )  # fmt: skip


def failed(task: Task, error: str, costs: Sequence[StageCost]) -> Result:
    """A task of which a stage failed."""
    return Result(task.name, official_name(task), task.score, costs=tuple(costs), error=error)


def percent(metric: str, value: float) -> float:
    """The kit's value as it is shown: shares in percent, others as they are."""
    return value if metric in NOT_SHARES else 100 * value


def leaderboard() -> dict[str, dict[str, str]]:
    """Published rows by the name of the task, and its mode where there are several."""
    lines = [x for x in LEADERBOARD.read_text(encoding="utf-8").splitlines() if x[:1] != "#"]
    return {row["task"]: row for row in csv.DictReader(lines)}


def official_name(task: Task) -> str | None:
    """Which row of the leaderboard a task is: by its name, and the mode at the folder's end."""
    name = str(task.metadata["task_name"]).removeprefix("tfds_")
    mode = task.name.rsplit("-", 1)[-1]
    if mode not in ("5h", "50h", "full"):  # "small" and other extracts do not compare
        return None
    rows = leaderboard()
    return next((key for key in (f"{name}-{mode}", name) if key in rows), None)


def write(folder: Path, module: str, found: Sequence[Result]) -> None:
    """Write results.csv and results.md into the run's folder."""
    for name, text in (("results.csv", as_csv(found)), ("results.md", markdown(module, found))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _rows(module: str, found: Sequence[Result], digits: int) -> list[list[str]]:
    rows = leaderboard()
    published = [key for key in next(iter(rows.values())) if key not in ("task", "title")]
    if not any(result.official for result in found):
        published = []
    table = [["task", "score", module, "spread", *published, *COSTS, "error"]]
    for result in found:
        others = [rows[result.official][key] if result.official else "" for key in published]
        costs = [text for cost in result.costs for text in cost.cells(digits - 1)]
        table.append(
            [
                result.task,
                result.metric,
                f"{result.score:.{digits}f}" if result.ok else "failed",
                "" if result.spread is None else f"{result.spread:.{digits}f}",
                *others,
                *costs,
                *[""] * (len(COSTS) - len(costs)),
                result.error,
            ]
        )
    return table


def as_csv(found: Sequence[Result]) -> str:
    """One row per task; `score` is our score in percent."""
    stream = io.StringIO()
    table = _rows("ours", found, digits=6)
    csv.writer(stream, lineterminator="\n").writerows(table)
    return stream.getvalue()


def markdown(module: str, found: Sequence[Result]) -> str:
    """The same for people; columns without any content are left out."""
    table = _rows(module, found, digits=1)
    keep = [i for i, column in enumerate(zip(*table, strict=True)) if any(column[1:])]
    lines = ["| " + " | ".join(row[i].replace("|", "/") for i in keep) + " |" for row in table]
    return "\n".join([lines[0], "|---" * len(keep) + "|", *lines[1:], ""])
