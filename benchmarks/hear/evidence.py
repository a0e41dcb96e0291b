"""What the offline tasks say: our models beside a baseline, twice, and at several hops."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hear_msm_mae.checkpoints.native import (
    Checkpoint,
    bundled_weights,
    load_checkpoint,
    save_checkpoint,
    state_tensors,
)
from hear_msm_mae.encoder import Encoder

from ..evaluation.contestants import file_digest
from ..measure import machine, write_section
from .kit import KIT_VERSION, HearError
from .marks import short_digest
from .results import COSTS, Result
from .run import Request, run
from .tasks_format import VOCABULARY, read_task, read_vocabulary, task_folders

log = logging.getLogger("hear")

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
GRID, GRID_POINTS = "fast", 1
HOPS_MS = (20, 40, 80, 160)
DEFAULT_HOP_MS = 40
OURS, UNTRAINED, NAIVE = "bundled weights", "untrained encoder", "hear-baseline naive"
Table = Mapping[str, Result]  # by task


def evidence(tasks_dir: Path, tasks: Sequence[str] | None, runs_dir: Path, write: bool) -> int:
    """Run everything, print the section of RESULTS.md and write it if wanted.

    Returns:
        1 if the second run gives other scores than the first one.

    Raises:
        HearError: a task failed.
    """
    base = Request(
        "hear_msm_mae", tasks_dir, tasks=tuple(tasks) if tasks else None, grid=GRID,
        grid_points=GRID_POINTS, runs_dir=runs_dir,
    )  # fmt: skip
    untrained = untrained_weights(runs_dir)
    contestants = {
        OURS: _scores(base),
        UNTRAINED: _scores(dataclasses.replace(base, weights=untrained)),
        NAIVE: _scores(dataclasses.replace(base, module="hearbaseline.naive")),
    }
    events = tuple(name for name, result in contestants[OURS].items() if "onset" in result.metric)
    scenes = tuple(name for name in contestants[OURS] if name not in events)
    twice = (*scenes[:1], *events[:1])  # one task of each kind: it takes as long again
    again = _scores(dataclasses.replace(base, tasks=twice, runs_dir=runs_dir / "again"))
    hops = {DEFAULT_HOP_MS: contestants[OURS]}
    for hop in HOPS_MS:
        if events and hop != DEFAULT_HOP_MS:
            options = {"timestamp_hop_ms": hop}
            hops[hop] = _scores(dataclasses.replace(base, tasks=events, options=options))
    text = section(contestants, again, hops, tasks_dir)
    print(text)
    if write:
        write_section(RESULTS, "hear", text)
    return 1 if differing(contestants[OURS], again) else 0


def untrained_weights(folder: Path) -> Path:
    """The bundled architecture and statistics with the random weights of seed 0, as a file.

    A file that is there stays: written again, it would hold the same tensors in other bytes, and
    what was done with it would be done again.
    """
    config = load_checkpoint(bundled_weights()).config
    path = folder / f"untrained-{short_digest(json.loads(config.to_json()))}.safetensors"
    if not path.is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = Encoder(config)
        save_checkpoint(path, Checkpoint(config, state_tensors(encoder)))
    return path


def _scores(request: Request) -> dict[str, Result]:
    folder, found = run(request)
    if failed := [result.task for result in found if not result.ok]:
        raise HearError(f"{', '.join(failed)} failed, see {folder / 'results.md'}")
    return {r.task: r for r in found if r.task in (request.tasks or [r.task])}


def differing(first: Table, second: Table) -> list[str]:
    """Tasks of which any score is not exactly the same."""
    return [task for task in second if first[task].scores != second[task].scores]


def section(
    contestants: Mapping[str, Table], again: Table, hops: Mapping[int, Table], tasks_dir: Path
) -> str:
    """The text for RESULTS.md."""
    ours = contestants[OURS]
    other = differing(ours, again)
    tried = " and ".join(again)
    same = (
        f"A second run of the bundled weights gave other scores for {', '.join(other)}."
        if other
        else f"A second run of the bundled weights on {tried}, from the start and in a folder of "
        "its own, gave exactly the same scores, to the last digit."
    )
    events = sorted(
        {task for table in hops.values() for task in table if "onset" in table[task].metric}
    )
    parts = [
        f"hear-eval-kit {KIT_VERSION}, unmodified, on the offline tasks of `benchmarks/hear`: "
        f"`make hear-evidence` (grid `{GRID}`, {GRID_POINTS} point; {machine()}). Bundled weights: "
        f"SHA-256 {file_digest(bundled_weights())}... The tasks are small, so differences of a few "
        "points mean little, and they do not compare with published scores.",
        _score_table(contestants, tasks_dir),
        "Scores in percent, with the standard deviation over folds where there are any.",
        same,
    ]
    if events:
        parts += [
            "### What a fine timestamp hop buys",
            "Bundled weights, option `timestamp_hop_ms`. Epochs are the same for all, so a finer "
            "hop also trains for more steps.",
            _hop_table(hops, events),
        ]
    parts += [
        "### Costs of the bundled weights",
        "Wall time depends on what else the machine does; processor time includes some 9 s in "
        "which a stage imports its libraries.",
        _cost_table(ours),
    ]
    return "\n\n".join(parts)


def _score_table(contestants: Mapping[str, Table], tasks_dir: Path) -> str:
    names = list(contestants)
    lines = ["| task | labels | audio, min | score | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 4) + "|")
    for folder in task_folders(tasks_dir):
        results = [contestants[name].get(folder.name) for name in names]
        if results[0] is None:
            continue
        cells = []
        best = max(result.score for result in results if result)
        for result in results:
            text = f"{result.score:.1f}" if result else ""
            text = f"**{text}**" if result and result.score == best else text
            cells.append(f"{text} ± {result.spread:.1f}" if result and result.spread else text)
        labels, minutes = _size(folder)
        row = [folder.name, str(labels), f"{minutes:.1f}", results[0].metric, *cells]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _size(folder: Path) -> tuple[int, float]:
    """Number of labels, and minutes of audio, of a task."""
    task = read_task(folder)
    labels = len(read_vocabulary(folder / VOCABULARY))
    clips = sum(len(json.loads((folder / f"{s}.json").read_text())) for s in task.splits)
    return labels, clips * (task.metadata["sample_duration"] or 0) / 60


def _hop_table(hops: Mapping[int, Table], events: Sequence[str]) -> str:
    order = sorted(hops)
    lines = ["| task | score | " + " | ".join(f"{hop} ms" for hop in order) + " |"]
    lines.append("|---" * (len(order) + 2) + "|")
    for task in events:
        metric = hops[order[0]][task].metric
        values = [f"{hops[hop][task].score:.1f}" for hop in order]
        lines.append(f"| {task} | {metric} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _cost_table(ours: Table) -> str:
    lines = ["| task | " + " | ".join(COSTS) + " |", "|---" * (len(COSTS) + 1) + "|"]
    for task, result in ours.items():
        cells = [cell for cost in result.costs for cell in cost.cells()]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
