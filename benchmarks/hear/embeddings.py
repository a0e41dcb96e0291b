"""Look at what stage 1 wrote, before stage 2 crashes at it without naming a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .check import batch_of_one
from .check_audio import Problem
from .tasks_format import Task

ROWS = 4096  # read at once


def check_embeddings(task: Task, folder: Path) -> list[Problem]:
    """Values that are not finite, and training sets that the kit's BatchNorm crashes at.

    Args:
        task: what was embedded.
        folder: where the kit wrote its embeddings.
    """
    problems: list[Problem] = []
    sizes: dict[str, int] = {}
    for split in task.splits:
        rows, width = json.loads((folder / f"{split}.embedding-dimensions.json").read_text())
        sizes[split] = rows
        vectors = np.memmap(
            folder / f"{split}.embeddings.npy", np.float32, "r", shape=(rows, width)
        )
        if not all(np.isfinite(vectors[i : i + ROWS]).all() for i in range(0, rows, ROWS)):
            problems += _not_finite(task, folder, split)
    unit = "frames" if task.metadata["embedding_type"] == "event" else "clips"
    return [*problems, *batch_of_one(task, sizes, unit)]


def _not_finite(task: Task, folder: Path, split: str) -> Iterator[Problem]:
    for name in json.loads((task.folder / f"{split}.json").read_text()):
        values = np.load(folder / split / f"{name}.embedding.npy", mmap_mode="r")
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            message = f"{bad} of the {values.size} values of its embedding are NaN or infinite"
            yield Problem(Path(split, name), message)
            return  # one file tells what to look at
