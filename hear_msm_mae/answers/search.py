"""Search an output of `embed` for similar sounds and near-duplicates."""

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
DUPLICATE = 0.95  # minimum similarity of near-duplicates, see benchmarks/RESULTS.md


class Hit(NamedTuple):
    """A part of a file that is similar to a query, which is a part of a file, too.

    `file` and `query_file` are absolute paths, `rank` counts from 1, times are in seconds.
    """

    query: str
    rank: int
    path: str
    start: float
    end: float
    similarity: float
    file: str
    query_file: str
    query_start: float
    query_end: float


class Pair(NamedTuple):
    """Two files, and the most similar parts of them."""

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
    """Find recordings, or parts of them, that sound like a query.

    A query becomes one embedding, whatever its length. Windows of the index that overlap the query
    are not returned. Of hits that overlap each other only the best is returned.

    Args:
        index: path of an output of `embed` or `index`, or an open `Index`, which is faster for
            several calls.
        queries: as the sources of `embed_files`.
        model: the model or weights that made the index; by default those that it names, which are
            loaded in each call.
        count: number of hits for each query.
        start, end: part of each query in seconds.
        one_per_file: return only the best part of each file.
        approximate: search with faiss, which builds a file beside the index in the first call.
            Large indexes are searched faster, and some hits may be missing.
        device: device that embeds the queries.

    Returns:
        Hits in the order of the queries, the best first.

    Raises:
        FileNotFoundError, ValueError: see `Index`; a query cannot be read, or the model or its
            options are not those of the index.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    index = index if isinstance(index, Index) else Index(index)
    found = find_recordings(queries)
    if start or end is not None:
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"expected 0 <= start < end, got {start} and {end}")
        found = [dataclasses.replace(x, start=start, end=end) for x in found]
    model, _ = same_model(index.path, index.table.settings, model, device)
    embeddings = list(embed_files(found, model))
    hidden = [index.overlapping(q, e.end) for q, e in zip(found, embeddings, strict=True)]
    more = count if one_per_file else count * index.crowding
    vectors = np.stack([x.embedding for x in embeddings])
    nearest = (Lists(index) if approximate else index).nearest(vectors, more, hidden, one_per_file)
    hits = []
    for query, embedded, rows in zip(found, embeddings, nearest, strict=True):
        asked = query.where, embedded.start, embedded.end
        taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row, similarity in rows:
            path, first, last, file = index.stretch(row)
            rank = 1 + sum(map(len, taken.values()))
            if rank > count or any(first < b and a < last for a, b in taken[file]):
                continue
            taken[file].append((first, last))
            part = path, first, last, similarity, file
            hits.append(Hit(printable(query.path), rank, *part, *asked))
    return hits


def duplicates(index: str | Path | Index, threshold: float = DUPLICATE) -> list[Pair]:
    """Find files with nearly the same sound, such as copies in another format.

    All pairs of rows are compared, so the time grows with the square of their number.

    Args:
        index: path of an output of `embed` or `index`, or an open `Index`.
        threshold: minimum similarity, at most 1.

    Returns:
        For each pair of files its most similar parts; the most similar pair first.

    Raises:
        FileNotFoundError, ValueError: see `Index`; there are more than a million pairs of files.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold must be above -1 and at most 1, got {threshold}")
    index = index if isinstance(index, Index) else Index(index)
    best: dict[tuple[str, ...], tuple[float, int, int]] = {}
    # Rounding makes the cosine of equal embeddings slightly less or more than 1.
    for a, b, similarity in index.pairs(threshold - 1e-5):
        key = tuple(sorted((index.stretch(a)[3], index.stretch(b)[3])))
        if key not in best and len(best) == MOST_PAIRS:
            raise ValueError(
                f"more than {MOST_PAIRS} pairs of files have a similarity of at least {threshold}; "
                "raise --threshold"
            )
        best[key] = max(best.get(key, (-2.0, 0, 0)), (similarity, a, b))
    ordered = sorted(best.values(), key=lambda x: (-x[0], x[1], x[2]))
    pairs = []
    for similarity, a, b in ordered:
        left, right = index.stretch(a), index.stretch(b)
        pairs.append(Pair(*left[:3], *right[:3], similarity, left[3], right[3]))
    return pairs
