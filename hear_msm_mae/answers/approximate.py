"""Approximate search with faiss: inverted lists of 8-bit codes in a file beside the index.

This kind takes the least memory of those in `benchmarks/search.py`: a byte per value. The file is
mapped into memory, so a query reads only the lists that it searches. The best candidates are
compared again with the exact rows of the index, if these are mapped into memory (`.npz`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import need
from ..files import printable, replacing
from .index import Index

logger = logging.getLogger(__name__)

PROBED = 32  # lists that a query searches
TRAINING_ROWS = 40  # for each list; faiss asks for 39
CANDIDATES = 5  # candidates that are compared exactly, per result
MANY = 2048  # candidates if only the best row of each file is returned


class Lists:
    """Inverted lists over the rows of an index.

    Args:
        index: an open index. The lists are built if they are missing or older than the index,
            which takes longer than many exact searches.

    Raises:
        ValueError: faiss is not installed.
    """

    def __init__(self, index: Index) -> None:
        need("faiss", "approximate", "approximate searches")
        import faiss

        self._index, path = index, Path(f"{index.path}.faiss")
        shape = index.table.total_rows, index.table.width
        made = None
        if path.exists() and path.stat().st_mtime_ns >= index.path.stat().st_mtime_ns:
            made = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        if made is None or (made.ntotal, made.d) != shape:
            logger.info("writing %s for %d embeddings", printable(path), shape[0])
            made = self._filled(faiss)
            with replacing(path) as temporary:
                faiss.write_index(made, str(temporary))
        made.nprobe = PROBED
        self._made = made

    def _filled(self, faiss: Any) -> Any:
        table, directions = self._index.table, self._index.directions
        total = table.total_rows
        count = max(1, min(int(total**0.5), total // TRAINING_ROWS))
        made = faiss.index_factory(table.width, f"IVF{count},SQ8", faiss.METRIC_INNER_PRODUCT)
        step = max(1, total // (TRAINING_ROWS * count))
        sample = [directions(block.rows[::step]).numpy() for _, block in table.indexed()]
        made.train(np.concatenate(sample))
        for _, block in table.indexed():
            made.add(directions(block.rows).numpy())
        return made

    def nearest(
        self,
        queries: NDArray[np.floating],
        count: int,
        hidden: Sequence[NDArray[np.int64]],
        one_per_file: bool = False,
    ) -> list[list[tuple[int, float]]]:
        """Like `Index.nearest`, but some near rows may be missing.

        Similarities of a `.parquet` index are rounded.
        """
        index, mapped = self._index, self._index.mapped
        wanted = MANY if one_per_file else count * (1 if mapped is None else CANDIDATES)
        wanted = min(wanted + max(map(len, hidden)), index.table.total_rows)
        unit = index.directions(queries)
        scores, rows = self._made.search(unit.numpy(), wanted)
        found = []
        for query, some, values, left_out in zip(unit, rows, scores, hidden, strict=True):
            keep = (some >= 0) & ~np.isin(some, left_out)
            some, values = some[keep], values[keep]
            if mapped is not None:
                values = (index.directions(mapped[some]) @ query).numpy()
            best = index.best(some, values, count, one_per_file)
            found.append(list(zip(*(x.tolist() for x in best), strict=True)))
        return found
