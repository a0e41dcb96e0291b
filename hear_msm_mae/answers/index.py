"""Exact search in an output of `embed`, in bounded memory.

Similarity is the cosine of two embeddings after the mean embedding of the index is subtracted.
Embeddings of one model have a large common part, which would hide their differences.
"""

from __future__ import annotations

import functools
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
TILE_ROWS = 256  # rows that are multiplied at once; as float32 they fit into the cache of a core
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

    Attributes:
        mapped: (r, d) all rows of an `.npz` file, mapped into memory. Other formats are decoded
            from front to back in each search.

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
        total = self.table.total_rows
        if not total:
            raise ValueError(f"{printable(path)} holds no embeddings")
        files = np.array([x.key[0] for x in self.table.recordings], object)
        self._files = files[[clip.recording for clip in self.table.clips]]  # absolute path of each
        self._paths = self.table.paths()
        npz = self.path.suffix.lower() == ".npz"
        self.mapped = self.table.read(0, total) if npz else None
        self._lengths = torch.full((total,), torch.nan)  # of centred rows
        self._centre = self._mean()

    def _mean(self) -> Tensor:
        total = self.table.total_rows
        if total < 3:  # with one or two rows nothing would be left
            return torch.zeros(self.table.width)
        step = -(-total // CENTRE_PARTS)
        parts = [self._rows(first, min(step, CENTRE_ROWS)) for first in range(0, total, step)]
        sums = sum(part.sum(0, dtype=np.float64) for part in parts)
        return torch.from_numpy(sums / sum(map(len, parts))).float()

    def _rows(self, first: int, count: int) -> NDArray[np.floating]:
        """At most so many rows."""
        if self.mapped is not None:
            return self.mapped[first : first + count]
        return self.table.read(first, min(count, self.table.total_rows - first))

    def directions(self, rows: NDArray[np.floating]) -> Tensor:
        """Centred embeddings of length 1: (r, d)."""
        centred = _tensor(rows).to(torch.float32, copy=True).sub_(self._centre)
        return centred.div_(self._length(centred)[:, None])

    def _length(self, centred: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(centred, dim=1)
        if not lengths.isfinite().all():
            raise ValueError(f"{printable(self.path)} holds NaN or infinite values; make it again")
        return lengths.clamp_(min=1e-12)

    def similarities(self, unit: Tensor, start: int = 0) -> Iterator[tuple[int, Rows]]:
        """Similarities of directions (q, d) with all rows from one on, in order.

        Each thread compares other rows, and torch uses one thread in each. Threads inside of torch
        would have to wait for each other after every block.

        Yields:
            Number of the first row of a block, and similarities (q, r) of its rows.
        """
        threads = torch.get_num_threads()
        waiting: deque[tuple[int, Future[Rows]]] = deque()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for first in range(start, self.table.total_rows, STEP_ROWS):
                    rows = self._rows(first, STEP_ROWS)
                    waiting.append((first, pool.submit(self._compared, unit, first, rows)))
                    if len(waiting) > 2 * threads:
                        yield waiting[0][0], waiting.popleft()[1].result()
                for first, future in waiting:
                    yield first, future.result()
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)  # the thread pool sets this for new threads

    def _compared(self, unit: Tensor, first: int, rows: NDArray[np.floating]) -> Rows:
        """Similarities of directions (q, d) with rows (r, d) from `first` on: (q, r).

        Each row is read and multiplied once: u (x - c) is u x - u c, and |x - c| is kept from the
        first search. All rows pass through one float32 tile, which stays in the cache.
        """
        lengths = self._lengths[first : first + len(rows)]
        known = not lengths[0].isnan()
        tile = torch.empty(TILE_ROWS, rows.shape[1])
        found = torch.empty(len(rows), len(unit))
        for begin in range(0, len(rows), TILE_ROWS):
            part = slice(begin, begin + TILE_ROWS)
            some = tile[: len(rows[part])].copy_(_tensor(rows[part]))
            torch.mm(some, unit.T, out=found[part])
            if not known:
                lengths[part] = self._length(some.sub_(self._centre))
        return found.T.sub_((unit @ self._centre)[:, None]).div_(lengths).numpy()

    def nearest(
        self,
        queries: NDArray[np.floating],
        count: int,
        hidden: Sequence[NDArray[np.int64]] | None = None,
        one_per_file: bool = False,
    ) -> list[list[tuple[int, float]]]:
        """Rows and similarities of the nearest rows of each query (q, d), the best first.

        Args:
            queries: (q, d) embeddings.
            count: maximum number of rows.
            hidden: for each query the rows that are not returned.
            one_per_file: return only the best row of each file.
        """
        unit = self.directions(queries)
        best = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in unit]
        for first, scores in self.similarities(unit):
            for q, row in enumerate(scores):
                if hidden is not None:
                    inside = (hidden[q] >= first) & (hidden[q] < first + len(row))
                    row[hidden[q][inside] - first] = -np.inf
                known, values = best[q]
                worst = values[-1] if len(known) == count else -np.inf
                new = np.flatnonzero(row > worst)
                if len(new):
                    rows = np.concatenate([known, first + new])
                    values = np.concatenate([values, row[new]])
                    best[q] = self.best(rows, values, count, one_per_file)
        return [list(zip(rows.tolist(), values.tolist(), strict=True)) for rows, values in best]

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
        for first in range(0, self.table.total_rows, STEP_ROWS):
            left = self.directions(self._rows(first, STEP_ROWS))
            for second, scores in self.similarities(left, first):
                for i, j in np.argwhere(scores >= threshold).tolist():
                    a, b = first + i, second + j
                    if a < b and self._files[a] != self._files[b]:
                        yield a, b, float(scores[i, j])

    def stretch(self, row: int) -> tuple[str, float, float, str]:
        """Path, start and end in seconds, and absolute path of a row."""
        clip = self.table.clips[row]
        return self._paths[clip.recording], clip.start, clip.end, self._files[row]

    def overlapping(self, query: Recording, end: float) -> NDArray[np.int64]:
        """Rows that overlap a part of a file."""
        rows = np.flatnonzero(self._files == query.where)
        clips = [self.table.clips[row] for row in rows]
        shared = [clip.start < end and query.start < clip.end for clip in clips]
        return rows[np.array(shared, bool)]

    @functools.cached_property
    def crowding(self) -> int:
        """Largest number of rows of a file that overlap one row of it, including that row."""
        numbers = {file: i for i, file in enumerate(dict.fromkeys(self._files))}
        starts, ends = np.array([(clip.start, clip.end) for clip in self.table.clips]).T
        apart = np.array([numbers[file] for file in self._files]) * (1 + ends.max())
        starts, ends = starts + apart, ends + apart  # of all files on one axis
        begun = np.searchsorted(np.sort(starts), ends, side="left")
        return int((begun - np.searchsorted(np.sort(ends), starts, side="right")).max())


def _tensor(rows: NDArray[np.floating]) -> Tensor:
    # Arrays that pyarrow reads cannot be written to, which torch warns about.
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())
