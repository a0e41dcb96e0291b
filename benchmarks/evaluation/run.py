"""Embed every pool with every contestant (cached), probe every task, collect the scores."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hear_msm_mae.files import replacing

from .contestants import Contestant
from .pools import Pool
from .probe import score, score_few, score_neighbours, splits
from .tasks import TaskData

log = logging.getLogger(__name__)
PROTOCOLS = {"linear": "linear probe", "knn": "5 nearest clips", "few": "8 clips per label"}
VERSION = 1  # raise it when the same settings have to give other scores
TaskScores = dict[str, list[float]]
"""Accuracy in percent of each seed, by protocol."""
Scores = dict[str, dict[str, TaskScores]]
"""By contestant and task."""


def embeddings(contestant: Contestant, pool: Pool, cache: Path) -> NDArray[np.float32]:
    """(n, d) for the clips of a pool, from the cache if they were computed before."""
    key = f"{contestant.fingerprint}/{pool.name}/{pool.digest}"
    path = _cached(cache, "embeddings", key, ".npy")
    if path.is_file():
        return np.load(path)
    started = time.monotonic()
    result = contestant.embeddings(pool.waveforms)
    if not np.isfinite(result).all():
        raise ValueError(f"{contestant.name} gives NaN or infinity for clips of {pool.name}")
    with replacing(path) as temporary:
        np.save(temporary, result)
    seconds = time.monotonic() - started
    log.info("%s: %d clips of %s in %.1f s", contestant.name, len(result), pool.name, seconds)
    return result


def evaluate(
    contestant: Contestant,
    tasks: Sequence[tuple[Pool, TaskData]],
    seeds: int,
    grid: Sequence[float],
    folds: int,
    cache: Path,
) -> dict[str, TaskScores]:
    """Scores by task, from the cache if they were computed before.

    A seed's split is the same for all contestants.
    """
    scores = {}
    for pool, data in tasks:
        settings = [contestant.fingerprint, pool.digest, data.name, seeds, *grid, folds, VERSION]
        path = _cached(cache, "scores", str(settings), ".json")
        if path.is_file():
            scores[data.name] = json.loads(path.read_text())
            continue
        vectors = embeddings(contestant, pool, cache)[data.indices]
        started = time.monotonic()
        found: TaskScores = {protocol: [] for protocol in PROTOCOLS}
        for seed in range(seeds):
            parts = splits(data, seed, folds)
            found["linear"].append(score(vectors, data.labels, parts, grid))
            found["knn"].append(score_neighbours(vectors, data.labels, parts))
            found["few"].append(score_few(vectors, data.labels, parts, seed))
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(found))
        scores[data.name] = found
        means = " ".join(f"{name} {np.mean(values):.1f}" for name, values in found.items())
        seconds = time.monotonic() - started
        log.info("%s: %s %s in %.1f s", contestant.name, data.name, means, seconds)
    return scores


def _cached(cache: Path, folder: str, key: str, suffix: str) -> Path:
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    return cache.expanduser() / folder / f"{name}{suffix}"
