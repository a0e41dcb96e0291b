"""Scores and costs of a run as CSV and Markdown, beside the published ones of official tasks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from hear_msm_mae.files import replacing

from .kit import Cost
from .task import Task

LEADERBOARD = Path(__file__).with_name("leaderboard.csv")
NOT_SHARES = frozenset({"d_prime", "segment_1s_er"})  # scores that are not given in percent


@dataclasses.dataclass(frozen=True)
class Result:
    """A task's scores, or why there are none."""

    task: str
    metric: str
    """The score that counts: the first one of the task's metadata."""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """In percent, by metric."""
    spread: float | None = None
    """Standard deviation over the folds, in percent."""
    costs: Sequence[Cost] = ()
    """Of the two stages."""
    error: str = ""


def scored(task: Task, content: Mapping[str, Any], costs: Sequence[Cost]) -> Result:
    """Read the kit's test.predicted-scores.json."""
    folds = "aggregated_scores" in content
    values = content["aggregated_scores" if folds else "test"]
    ending = "_mean" if folds else ""
    metrics = task.metadata["evaluation"]
    scores = {metric: percent(metric, values[f"test_{metric}{ending}"]) for metric in metrics}
    spread = 100 * values[f"test_{metrics[0]}_std"] if folds else None
    return Result(task.folder.name, metrics[0], scores, spread, costs)


def percent(metric: str, value: float) -> float:
    """The kit's value as it is shown: shares in percent, others as they are."""
    return value if metric in NOT_SHARES else 100 * value


def leaderboard() -> pandas.DataFrame:
    """Published scores in percent: a row per task, a column per model."""
    return pandas.read_csv(LEADERBOARD, comment="#", index_col="task").drop(columns="title")


def official_name(folder: str) -> str | None:
    """Which row of the leaderboard a task is, by its folder: <task>-<version>-<mode>."""
    name, *_, mode = folder.removeprefix("tfds_").split("-")
    if mode not in ("5h", "50h", "full"):  # "small" and other extracts do not compare
        return None
    rows = leaderboard().index
    return next((key for key in (f"{name}-{mode}", name) if key in rows), None)


def table(found: Sequence[Result]) -> pandas.DataFrame:
    """One row per task; columns without any content are left out."""
    rows: list[dict[str, Any]] = []
    for result in found:
        row: dict[str, Any] = {"task": result.task, "score": result.metric}
        row |= {"ours": result.scores.get(result.metric), "spread": result.spread}
        if official := official_name(result.task):
            row |= dict(leaderboard().loc[official])
        for stage, cost in enumerate(result.costs, start=1):
            row |= {f"stage {stage} {unit}": value for unit, value in cost.items()}
        rows.append(row | {"error": result.error or None})
    return pandas.DataFrame(rows).dropna(axis="columns", how="all")


def markdown(frame: pandas.DataFrame) -> str:
    """A table for people: one decimal place, no seconds or megabytes in fractions."""
    lines = [list(frame), ["---"] * frame.shape[1]]
    for row in frame.to_dict("records"):
        lines.append([_cell(str(column), value) for column, value in row.items()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(column: str, value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.{0 if column.startswith('stage') else 1}f}"
    return "" if value is None else str(value).replace("|", "/")


def write(folder: Path, found: Sequence[Result]) -> None:
    """Write results.csv and results.md into the run's folder."""
    frame = table(found)
    for name, text in (
        ("results.csv", frame.to_csv(index=False)),
        ("results.md", markdown(frame) + "\n"),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a file that is whole or not there."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
