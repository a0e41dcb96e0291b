"""Exact search in an output of `embed`, in bounded memory.

Similarity is the cosine of two embeddings after the mean embedding of the index is subtracted.
Embeddings of one model have a large common part, which would hide their differences.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..embed.run import Summary, embed_to
from ..embed.settings import settings_of
from ..embed.sources import Recording
from ..files import printable
from .loading import Model, loaded, read_output

CENTRE_PARTS = 20  # number of evenly spaced runs of rows from which the mean is computed
CENTRE_ROWS = 1000  # rows in each run; of a smaller index all rows are used
TILE_ROWS = 256  # rows that are read and compared at once; they fit into the cache of a core
STEP_ROWS = 4096  # rows that a thread takes at once

Rows = NDArray[np.float32]


def index(
    sources: Any,
    output: str | Path,
    model: Model = "",
    *,
    segment: float | None = 2.0,
    overlap: float = 1.0,
    dtype: str = "float16",
    device: str = "cpu",
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Embed recordings for `search`, in windows of 2 s, one every second; see `embed_files`.

    Args:
        output: file to write, `.parquet` or `.npz`; the latter is searched faster.
        segment: length of the windows in seconds; None for one embedding per recording.
        overwrite: embed everything anew; by default only new recordings are embedded.

    Raises:
        FileNotFoundError, ValueError: there is nothing to embed, the windows are impossible, or the
            output has other settings.
    """
    model, name = loaded(model, device)
    overlap = 0.0 if segment is None else overlap
    settings = settings_of(model, name, False, segment, overlap, dtype)
    return embed_to(output, sources, model, settings, workers=workers, overwrite=overwrite)


class Index:
    """An output of `embed` that can be searched many times; the rows stay in the file.

    The first search computes the length of each row, which is kept (4 bytes per row).

    Args:
        path: output of `embed` with one embedding for each recording or window.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not such an output, has timestamps, or has no rows.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.table = Path(path), read_output(path)
        if self.table.timestamps:
            raise ValueError(
                f"{printable(path)} was made with --timestamps; search needs an embedding for each "
                "recording or window, as 'hear-msm-mae index' makes them"
            )
        if not self.table.total_rows:
            raise ValueError(f"{printable(path)} holds no embeddings")
        self._numbers: dict[str, int] = {}  # file of each row
        numbers = self._numbers
        files = [numbers.setdefault(str(x.key[0]), len(numbers)) for x in self.table.recordings]
        self._files = np.array([files[clip.recording] for clip in self.table.clips])
        self._paths = self.table.paths()
        self._centre = self._mean()
        self._lengths = torch.full((self.table.total_rows,), torch.nan)  # of centred rows
        # Several threads can read one array. Other formats are read from front to back.
        self.anywhere = self.path.suffix.lower() == ".npz"

    def _mean(self) -> Tensor:
        total = self.table.total_rows
        if total < 3:  # with one or two rows nothing would be left
            return torch.zeros(self.table.width)
        step = -(-total // CENTRE_PARTS)
        firsts = range(0, total, step)
        sums, count = np.zeros(self.table.width), 0
        for first in firsts:
            rows = self.table.rows_of(first, min(step, CENTRE_ROWS, total - first)).rows
            sums += rows.sum(0, dtype=np.float64)
            count += len(rows)
        return torch.from_numpy(sums / count).float()

    def directions(self, rows: NDArray[np.floating]) -> Tensor:
        """Centred embeddings of length 1: (r, d)."""
        centred = _float(rows).sub_(self._centre)
        return centred.div_(self._length(centred)[:, None])

    def _length(self, centred: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(centred, dim=1)
        if not lengths.isfinite().all():
            raise ValueError(f"{printable(self.path)} holds NaN or infinite values; make it again")
        return lengths.clamp_(min=1e-12)

    def _compared(self, unit: Tensor, first: int, last: int, read: Rows | None) -> Rows:
        """Similarities of directions (q, d) with rows of the file: (q, r); `read` are the rows.

        Each row is read and multiplied once: u (x - c) is u x - u c, and |x - c| is known.
        """
        products, known = [], not self._lengths[first:last].isnan().any()
        for begin in range(first, last, TILE_ROWS):
            end = min(begin + TILE_ROWS, last)
            if read is None:
                rows = _float(self.table.rows_of(begin, end - begin).rows)
            else:
                rows = _float(read[begin - first : end - first])
            if not known:
                self._lengths[begin:end] = self._length(rows - self._centre)
            products.append(unit @ rows.T)
        found = torch.cat(products, dim=1).sub_((unit @ self._centre)[:, None])
        return found.div_(self._lengths[first:last]).numpy()

    def similarities_of(self, direction: Tensor, rows: NDArray[np.int64]) -> Rows:
        """Similarities of a direction (d,) with some rows (r,): (r,)."""
        read = [self.table.rows_of(row, 1).rows for row in rows.tolist()]
        if not read:
            return np.zeros(0, np.float32)
        return (self.directions(np.concatenate(read)) @ direction).numpy()

    def similarities(self, unit: Tensor, start: int = 0) -> Iterator[tuple[int, Rows]]:
        """Similarities of directions (q, d) with all rows from one on, in order.

        Each thread compares other rows, and torch uses one thread in each. Threads inside of torch
        would have to wait for each other after every block.

        Yields:
            Number of the first row of a block, and similarities (q, r) of its rows.
        """
        total, threads = self.table.total_rows, torch.get_num_threads()
        firsts = range(start, total, STEP_ROWS)
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: deque[tuple[int, Future[Rows]]] = deque()
            try:
                for first in firsts:
                    last = min(first + STEP_ROWS, total)
                    rows = None
                    if not self.anywhere:
                        rows = self.table.rows_of(first, last - first).rows
                    waiting.append((first, pool.submit(self._compared, unit, first, last, rows)))
                    if len(waiting) > 2 * threads:
                        yield waiting[0][0], waiting.popleft()[1].result()
                for first, future in waiting:
                    yield first, future.result()
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)  # the thread pool sets this for new threads

    def nearest(
        self,
        queries: NDArray[np.floating],
        count: int,
        hidden: Sequence[NDArray[np.int64]] | None = None,
        one_per_file: bool = False,
    ) -> list[list[tuple[int, float]]]:
        """Rows and similarities of the nearest rows of each query (q, d), the best first.

        Args:
            queries: (q, d) centred embeddings of length 1.
            count: maximum number of rows.
            hidden: for each query the rows that are not returned.
            one_per_file: return only the best row of each file.
        """
        unit = self.directions(queries)
        best = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in unit]
        for first, scores in self.similarities(unit):
            numbers = np.arange(first, first + scores.shape[1])
            for q, row in enumerate(scores):
                if hidden is not None:
                    inside = (hidden[q] >= numbers[0]) & (hidden[q] <= numbers[-1])
                    row[hidden[q][inside] - numbers[0]] = -np.inf
                known, known_scores = best[q]
                worst = known_scores[-1] if len(known) == count else -np.inf
                new = np.flatnonzero(row > worst)
                if len(new):
                    found = np.concatenate([known, numbers[new]])
                    values = np.concatenate([known_scores, row[new]])
                    best[q] = self.best(found, values, count, one_per_file)
        return [[(int(r), float(s)) for r, s in zip(*x, strict=True)] for x in best]

    def best(
        self, rows: NDArray[np.int64], scores: Rows, count: int, one_per_file: bool
    ) -> tuple[NDArray[np.int64], Rows]:
        """The best rows, or the best row of each file. Of equal rows the first is taken."""
        order = np.lexsort((rows, -scores))
        if one_per_file:
            _, first = np.unique(self._files[rows[order]], return_index=True)
            order = order[np.sort(first)]
        return rows[order[:count]], scores[order[:count]]

    def pairs(self, threshold: float) -> Iterator[tuple[int, int, float]]:
        """All pairs of rows of different files with at least the given similarity."""
        total = self.table.total_rows
        for first in range(0, total, STEP_ROWS):
            left = self.directions(self.table.rows_of(first, min(STEP_ROWS, total - first)).rows)
            for second, scores in self.similarities(left, first):
                for i, j in np.argwhere(scores >= threshold).tolist():
                    a, b = first + i, second + j
                    if a < b and self._files[a] != self._files[b]:
                        yield a, b, float(scores[i, j])

    def stretch(self, row: int) -> tuple[str, float, float, str]:
        """Path, start and end in seconds, and absolute path of a row."""
        clip = self.table.clips[row]
        file = str(self.table.recordings[clip.recording].key[0])
        return self._paths[clip.recording], clip.start, clip.end, file

    def overlapping(self, query: Recording, end: float) -> NDArray[np.int64]:
        """Rows that overlap a part of a file."""
        rows = np.flatnonzero(self._files == self._numbers.get(query.where, -1))
        clips = [self.table.clips[row] for row in rows]
        shared = [clip.start < end and query.start < clip.end for clip in clips]
        return rows[np.array(shared, bool)]

    @property
    def crowding(self) -> int:
        """Number of windows that overlap one window, including itself."""
        segment, overlap = (self.table.settings.get(name) for name in ("segment", "overlap"))
        return 1 if not segment else 2 * math.ceil(segment / (segment - (overlap or 0.0))) - 1


def _float(rows: NDArray[np.floating]) -> Tensor:
    """A copy as float32."""
    # Arrays that pyarrow reads cannot be written to, which torch warns about.
    writeable = rows if rows.flags.writeable else rows.copy()
    return torch.from_numpy(writeable).to(torch.float32, copy=True)
