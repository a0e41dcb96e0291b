"""Scores and tasks as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from .probe import splits
from .run import PROTOCOLS, Scores, TaskScores
from .tasks import TASKS, TaskData


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; 0 for a single seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def averages(scores: Mapping[str, TaskScores], protocol: str = "linear") -> list[float]:
    """Mean over the tasks, for each seed."""
    by_task = [task[protocol] for task in scores.values()]
    return [statistics.fmean(seed) for seed in zip(*by_task, strict=True)]


def markdown(scores: Scores, tasks: Sequence[TaskData]) -> str:
    """One row per task, one column per contestant; the best of a row is bold.

    Below the tasks with a linear probe stand the averages of all protocols: of the tasks that
    settings were chosen with, and of the others.
    """
    lines = ["| task | chance | " + " | ".join(scores) + " |", "|---" * (len(scores) + 2) + "|"]
    for data in tasks:
        values = [by_task[data.name]["linear"] for by_task in scores.values()]
        lines.append(_row(_marked(data.name), f"{data.chance:.1f}", values))
    groups = {"average": [t for t in tasks if TASKS[t.name].tuned],
              "average*": [t for t in tasks if not TASKS[t.name].tuned]}  # fmt: skip
    for protocol, name in PROTOCOLS.items():
        for label, group in groups.items():
            if group:
                names = {data.name for data in group}
                values = [
                    averages({t: x for t, x in by_task.items() if t in names}, protocol)
                    for by_task in scores.values()
                ]
                chance = statistics.fmean(data.chance for data in group)
                lines.append(_row(f"**{label} of {len(group)}**, {name}", f"{chance:.1f}", values))
    return "\n".join(lines)


def _marked(task: str) -> str:
    return task if TASKS[task].tuned else f"{task}*"


def _row(label: str, chance: str, values: Sequence[Sequence[float]]) -> str:
    results = [mean_and_spread(seeds) for seeds in values]
    best = max(round(mean, 1) for mean, _ in results)
    cells = [
        f"**{mean:.1f}** ± {spread:.1f}" if round(mean, 1) == best else f"{mean:.1f} ± {spread:.1f}"
        for mean, spread in results
    ]
    return f"| {label} | {chance} | " + " | ".join(cells) + " |"


def description(tasks: Sequence[TaskData], seeds: int) -> str:
    """What the tasks are, as a table."""
    counts = "clips | seconds | classes | groups | divisions"
    lines = [f"| task | label | never divided | {counts} | chance |", "|---" * 9 + "|"]
    for data in tasks:
        task = TASKS[data.name]
        lines.append(
            f"| {_marked(data.name)} | {task.label} | {task.group} | {len(data.labels)} "
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
