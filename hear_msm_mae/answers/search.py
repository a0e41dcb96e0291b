"""Nearest stretches of queries, and near-duplicates, in an output of `embed`."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..embed.records import embed_files
from ..embed.sources import find_recordings
from ..files import printable
from .approximate import Lists
from .index import Index
from .loading import Model, same_model

MOST_PAIRS = 1_000_000
DUPLICATE = 0.95  # similarity from which on files are near-duplicates, see benchmarks/RESULTS.md


class Hit(NamedTuple):
    """A stretch that is near to a query; `file` is its absolute path, `rank` counts from 1."""

    query: str
    rank: int
    path: str
    start: float
    end: float
    similarity: float
    file: str


class Pair(NamedTuple):
    """Two files, and the stretches in which they are the most alike."""

    path: str
    start: float
    end: float
    other: str
    other_start: float
    other_end: float
    similarity: float
    file: str
    other_file: str


def search(
    index: str | Path | Index,
    queries: Any,
    model: Model = "",
    *,
    count: int = 10,
    start: float = 0.0,
    end: float | None = None,
    one_per_file: bool = False,
    approximate: bool = False,
    device: str = "cpu",
) -> list[Hit]:
    """Find what sounds like a recording, or like a stretch of one.

    A query becomes one embedding, whatever its length. What shares time with it is left out, and
    of hits that overlap each other only the best is there.

    Args:
        index: an output of `embed` or `index`; or one that is open, an `Index`, which answers
            further calls faster.
        queries: as the sources of `embed_files`.
        model: the model or weights that made the index; by default those that it names, which are
            loaded in each call.
        count: hits for each query.
        start, end: of the stretch in each query, in seconds.
        one_per_file: only the best stretch of each file.
        approximate: ask inverted lists of faiss, which are made beside the index when they are not
            there; of large indexes answers come at once, and some near ones may be missing.
        device: where to embed the queries.

    Returns:
        Hits, those of the first query first, the best first.

    Raises:
        FileNotFoundError, ValueError: see `Index`; queries that cannot be read; a model that did
            not make the index, or has other options.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    index = index if isinstance(index, Index) else Index(index)
    found = find_recordings(queries)
    if start or end is not None:
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"expected 0 <= start < end, got {start} and {end}")
        found = [dataclasses.replace(x, start=start, end=end) for x in found]
    model = same_model(index.path, index.table.settings, model, device)
    embeddings = list(embed_files(found, model))
    hidden = [index.overlapping(q, e.end) for q, e in zip(found, embeddings, strict=True)]
    more = count if one_per_file else count * index.crowding
    vectors = np.stack([x.embedding for x in embeddings])
    nearest = (Lists(index) if approximate else index).nearest(vectors, more, hidden, one_per_file)
    hits = []
    for query, rows in zip(found, nearest, strict=True):
        taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row, similarity in rows:
            path, first, last, file = index.stretch(row)
            rank = 1 + sum(map(len, taken.values()))
            if rank > count or any(first < b and a < last for a, b in taken[file]):
                continue
            taken[file].append((first, last))
            hits.append(Hit(printable(query.path), rank, path, first, last, similarity, file))
    return hits


def duplicates(index: str | Path | Index, threshold: float = DUPLICATE) -> list[Pair]:
    """Find files that hold nearly the same sound, such as copies in another format.

    Every row is compared with every other one, so the time grows with the square of their number.

    Args:
        index: an output of `embed` or `index`.
        threshold: similarity from which on two stretches count, at most 1.

    Returns:
        For each two files the pair of stretches that is the most alike; the most similar first.

    Raises:
        FileNotFoundError, ValueError: see `Index`; more than a million pairs of files.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold must be above -1 and at most 1, got {threshold}")
    index = index if isinstance(index, Index) else Index(index)
    best: dict[tuple[str, str], tuple[float, int, int]] = {}
    # Rounding puts the cosine of equal embeddings a little beside 1.
    for a, b, similarity in index.pairs(threshold - 1e-5):
        first, second = sorted((index.stretch(a)[3], index.stretch(b)[3]))
        key = first, second
        if key not in best and len(best) == MOST_PAIRS:
            raise ValueError(
                f"more than {MOST_PAIRS} pairs of files are at least {threshold} alike; raise "
                "--threshold"
            )
        best[key] = max(best.get(key, (-2.0, 0, 0)), (similarity, a, b))
    ordered = sorted(best.values(), key=lambda x: (-x[0], x[1], x[2]))
    return [
        Pair(
            *index.stretch(a)[:3],
            *index.stretch(b)[:3],
            s,
            index.stretch(a)[3],
            index.stretch(b)[3],
        )
        for s, a, b in ordered
    ]
