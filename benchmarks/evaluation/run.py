"""Embed every pool with every contestant (cached), probe every task, collect the scores."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hear_msm_mae.files import replacing

from .contestants import Contestant
from .pools import Pool
from .probe import score, splits
from .tasks import TaskData

log = logging.getLogger(__name__)
#: Accuracy in percent of each seed, by contestant and task.
Scores = dict[str, dict[str, list[float]]]


def embeddings(contestant: Contestant, pool: Pool, cache: Path) -> NDArray[np.float32]:
    """(n, d) for the clips of a pool, from the cache if they were computed before."""
    key = f"{contestant.fingerprint}/{pool.name}/{pool.digest}"
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    path = cache.expanduser() / "embeddings" / f"{name}.npy"
    if path.is_file():
        return np.load(path)
    started = time.monotonic()
    result = contestant.embeddings(pool.waveforms)
    if not np.isfinite(result).all():
        raise ValueError(f"{contestant.name} gives NaN or infinity for clips of {pool.name}")
    with replacing(path) as temporary:
        np.save(temporary, result)
    log.info(
        "%s: %d clips of %s in %.1f s",
        contestant.name,
        len(result),
        pool.name,
        time.monotonic() - started,
    )
    return result


def evaluate(
    contestant: Contestant,
    tasks: Sequence[tuple[Pool, TaskData]],
    seeds: int,
    grid: Sequence[float],
    folds: int,
    cache: Path,
) -> dict[str, list[float]]:
    """Accuracy in percent per seed, by task; a seed's split is the same for all contestants."""
    scores = {}
    for pool, data in tasks:
        vectors = embeddings(contestant, pool, cache)[data.indices]
        started = time.monotonic()
        results = [score(vectors, data.labels, splits(data, s, folds), grid) for s in range(seeds)]
        scores[data.name] = [accuracy for accuracy, _ in results]
        strengths = Counter(f"{strength:g}" for _, chosen in results for strength in chosen)
        log.info(
            "%s: %s %.1f in %.1f s (C %s)",
            contestant.name,
            data.name,
            np.mean(scores[data.name]),
            time.monotonic() - started,
            " ".join(f"{strength}:{count}" for strength, count in strengths.most_common()),
        )
    return scores
