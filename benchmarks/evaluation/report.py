"""Scores as a Markdown table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .probe import splits
from .run import Scores
from .tasks import TASKS, TaskData


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; 0 for a single seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def averages(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Mean over the tasks, for each seed."""
    return [statistics.fmean(seed) for seed in zip(*scores.values(), strict=True)]


def markdown(scores: Scores, tasks: Sequence[TaskData], spread: bool = True) -> str:
    """One row per task, one column per contestant; the best of a row is bold."""
    names = list(scores)
    lines = ["| task | chance | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    chances = {data.name: data.chance for data in tasks}
    rows = [(t, f"{chances[t]:.1f}", {n: scores[n][t] for n in names}) for t in chances]
    chance = statistics.fmean(chances.values())
    rows.append(("**average**", f"{chance:.1f}", {n: averages(scores[n]) for n in names}))
    for label, chance_text, values in rows:
        results = {name: mean_and_spread(values[name]) for name in names}
        best = max(mean for mean, _ in results.values())
        cells = []
        for mean, deviation in results.values():
            cell = f"**{mean:.1f}**" if mean == best else f"{mean:.1f}"
            cells.append(f"{cell} ± {deviation:.1f}" if spread else cell)
        lines.append(f"| {label} | {chance_text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def description(tasks: Sequence[TaskData], seeds: int) -> str:
    """What the tasks are, as a table."""
    counts = "clips | seconds | classes | groups | divisions"
    lines = [f"| task | label | never divided | {counts} | chance |", "|---" * 9 + "|"]
    for data in tasks:
        task = TASKS[data.name]
        lines.append(
            f"| {data.name} | {task.label} | {task.group} | {len(data.labels)} "
            f"| {task.recipe.seconds:g} | {len(data.classes)} | {len(set(data.groups))} "
            f"| {divisions(data, seeds)} | {data.chance:.1f} |"
        )
    return "\n".join(lines)


def divisions(data: TaskData, seeds: int) -> int:
    """How many of the seeds' divisions into test parts differ: few groups have few of them."""
    found = {
        frozenset(tuple(sorted(part.test)) for part in splits(data, seed, 1))
        for seed in range(seeds)
    }
    return len(found)


def as_json(scores: Scores, tasks: Sequence[TaskData], settings: Mapping[str, Any]) -> dict:
    """Everything, for programs: settings, tasks, and per contestant the scores of each seed."""
    return {
        "settings": dict(settings),
        "tasks": {
            data.name: {
                "clips": len(data.labels),
                "classes": list(data.classes),
                "groups": len(set(data.groups)),
                "chance": data.chance,
            }
            for data in tasks
        },
        "contestants": {
            name: {
                "average": mean_and_spread(averages(by_task))[0],
                "average_spread": mean_and_spread(averages(by_task))[1],
                "tasks": by_task,
            }
            for name, by_task in scores.items()
        },
    }
