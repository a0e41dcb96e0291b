"""The offline tasks with our models, a baseline, a second run, and several timestamp hops."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pandas
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
from . import results
from .kit import KIT_VERSION, HearError
from .results import Result
from .run import Request, run

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
GRID, GRID_POINTS = "fast", 1
HOPS_MS = (20, 80, 160)  # the default is 40
OURS, AGAIN = "bundled weights", "the same, second run"
Results = Mapping[str, Result]  # by task


def evidence(tasks_dir: Path, tasks: tuple[str, ...] | None, runs_dir: Path, write: bool) -> int:
    """Run everything, print the section of RESULTS.md and write it if wanted.

    Returns:
        1 if the second run gives other scores than the first one.

    Raises:
        HearError: a task failed.
    """
    base = Request(
        "hear_msm_mae", tasks_dir, tasks=tasks, grid=GRID, grid_points=GRID_POINTS,
        runs_dir=runs_dir,
    )  # fmt: skip
    untrained = dataclasses.replace(base, weights=untrained_weights(runs_dir))
    ours = _results(base)
    events = tuple(name for name, result in ours.items() if "onset" in result.metric)
    scenes = tuple(name for name in ours if name not in events)
    twice = (*scenes[:1], *events[:1])  # one task of each kind, because it takes as long again
    again = _results(dataclasses.replace(base, tasks=twice, runs_dir=runs_dir / "again"))
    columns = {
        OURS: ours,
        AGAIN: again,
        "untrained encoder": _results(untrained),
        "hear-baseline naive": _results(dataclasses.replace(base, module="hearbaseline.naive")),
    }
    for hop in HOPS_MS if events else ():
        finer = dataclasses.replace(base, tasks=events, options={"timestamp_hop_ms": hop})
        columns[f"hop {hop} ms"] = _results(finer)
    text = section(columns)
    print(text)
    if write:
        write_section(RESULTS, "hear", text)
    return int(any(result.scores != ours[task].scores for task, result in again.items()))


def untrained_weights(folder: Path) -> Path:
    """The bundled architecture and statistics with the random weights of seed 0, as a file.

    A file that is there stays: written again, it would hold the same tensors in other bytes, and
    what was done with it would be done again.
    """
    config = load_checkpoint(bundled_weights()).config
    path = folder / f"untrained-{file_digest(bundled_weights())}.safetensors"
    if not path.is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = Encoder(config)
        save_checkpoint(path, Checkpoint(config, state_tensors(encoder)))
    return path


def _results(request: Request) -> dict[str, Result]:
    folder, found = run(request)
    if failed := [result.task for result in found if result.error]:
        raise HearError(f"{', '.join(failed)} failed, see {folder / 'results.md'}")
    return {r.task: r for r in found if r.task in (request.tasks or [r.task])}


def section(columns: Mapping[str, Results]) -> str:
    """The text for RESULTS.md: a row per task, a column per run."""
    ours = columns[OURS]
    rows = []
    for task, first in ours.items():
        shown = {name: found[task] for name, found in columns.items() if task in found}
        scores = {name: result.scores[first.metric] for name, result in shown.items()}
        rows.append({"task": task, "score": first.metric} | scores)
    return "\n\n".join(
        [
            f"hear-eval-kit {KIT_VERSION}, unmodified, on the offline tasks of `benchmarks/hear`: "
            f"`make hear-evidence` (grid `{GRID}`, {GRID_POINTS} point; {machine()}). Bundled "
            f"weights: SHA-256 {file_digest(bundled_weights())}... Scores in percent. The tasks "
            "are small, so differences of a few points mean little, and they do not compare with "
            "published scores. The last columns are the bundled weights with other values of "
            "`timestamp_hop_ms` than 40; a finer hop also trains for more steps.",
            results.markdown(pandas.DataFrame(rows)),
            "Costs of the bundled weights. Processor time includes some 9 s in which a stage "
            "imports its libraries.",
            results.markdown(results.table(list(ours.values()))),
        ]
    )
