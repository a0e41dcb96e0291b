"""The content of an output: recordings, their clips, and the embeddings as a stream of blocks."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..files import printable

BLOCK_BYTES = 2**24  # size of the embeddings that are in memory at once
_DTYPES = ("float32", "float16")


class Block(NamedTuple):
    """Consecutive rows: (r, d) embeddings and, with timestamps, (r,) times in the file in ms."""

    rows: NDArray[np.floating]
    times_ms: NDArray[np.float64] | None


Reader = Callable[[int, int], Block]  # (first row, number of rows) -> those rows


@dataclasses.dataclass(slots=True)
class Clip:
    """A clip: index of its recording, start and end in the file in seconds, number of rows."""

    recording: int
    start: float
    end: float
    rows: int
    channel: int | None = None


@dataclasses.dataclass(slots=True)
class Done:
    """A recording that is complete in the output.

    Attributes:
        key: `Recording.key` as a list; it begins with the absolute path or URL.
        path, name, columns: as in `Recording`; the path is escaped for printing.
        stamp: identifies the version of the file (size and time, or a hash), in types of JSON.
    """

    key: list[Any]
    path: str
    name: str
    stamp: Any = None
    columns: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Table:
    """Recordings, their clips in the same order, and their rows in the order of the clips.

    Attributes:
        settings: the settings of the run, in types of JSON.
        width, dtype: size and type of an embedding.
        timestamps: whether rows have times.
        rows_of: function (first row, number of rows) -> `Block`. `from_json` does not set it.
    """

    recordings: list[Done]
    clips: list[Clip]
    settings: dict[str, Any]
    width: int
    dtype: np.dtype[Any]
    timestamps: bool
    rows_of: Reader = None  # type: ignore[assignment]

    @functools.cached_property
    def ends(self) -> NDArray[np.int64]:
        """(clips,) for each clip the index of its last row, plus one."""
        return np.cumsum([clip.rows for clip in self.clips], dtype=np.int64)

    @functools.cached_property
    def spans(self) -> list[tuple[int, int]]:
        """For each recording the index of its first clip, and that of its last clip plus one."""
        owners = [clip.recording for clip in self.clips]
        numbers = range(len(self.recordings))
        return [(bisect.bisect_left(owners, r), bisect.bisect_right(owners, r)) for r in numbers]

    @property
    def total_rows(self) -> int:
        """Number of rows of all clips."""
        return int(self.ends[-1]) if self.clips else 0

    def indexed(self) -> Iterator[tuple[NDArray[np.int64], Block]]:
        """Blocks of about `BLOCK_BYTES` with the index of the clip of each row.

        Raises:
            ValueError: there are fewer rows than the clips have.
        """
        step = max(1, BLOCK_BYTES // (self.width * self.dtype.itemsize))
        for first in range(0, self.total_rows, step):
            numbers = np.arange(first, min(first + step, self.total_rows))
            block = self.rows_of(first, len(numbers))
            if len(block.rows) != len(numbers):
                missing = len(numbers) - len(block.rows)
                raise ValueError(f"{missing} rows are missing; the output is damaged")
            yield np.searchsorted(self.ends, numbers, side="right"), block

    def select(self, order: Sequence[int]) -> Table:
        """A table of some of the recordings, in a new order."""
        return combined([self], [(0, recording) for recording in order])

    def paths(self) -> list[str]:
        """Paths of the recordings in outputs.

        A path is as given, or absolute if several files share the given path.
        """
        owners: dict[str, set[Any]] = {}
        for done in self.recordings:
            owners.setdefault(done.path, set()).add(done.key[0])
        return [
            x.path if len(owners[x.path]) == 1 else printable(x.key[0]) for x in self.recordings
        ]

    def columns(self) -> dict[str, list[Any]]:
        """Columns of lists: a value or None for each recording, all of a column of one type."""
        names = dict.fromkeys(itertools.chain.from_iterable(x.columns for x in self.recordings))
        return {name: _alike([x.columns.get(name) for x in self.recordings]) for name in names}

    def to_json(self, **more: Any) -> str:
        """The table without its rows, for `from_json`; `more` is stored too."""
        parts = {
            "settings": self.settings,
            "width": self.width,
            "dtype": self.dtype.name,
            "timestamps": self.timestamps,
            **more,
            "recordings": [[x.key, x.path, x.name, x.stamp, x.columns] for x in self.recordings],
            "clips": [[x.recording, x.start, x.end, x.rows, x.channel] for x in self.clips],
        }
        lines = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in parts.items())
        return f"{{\n{lines}\n}}\n"


def from_json(text: str | bytes) -> tuple[Table, dict[str, Any]]:
    """Read what `Table.to_json` wrote.

    Returns:
        The table, whose `rows_of` the caller sets, and all parts of the JSON object.

    Raises:
        ValueError: `to_json` did not write it.
    """
    try:
        parts = json.loads(text)
        recordings = [
            Done(list(key), str(path), str(name), stamp, dict(columns))
            for key, path, name, stamp, columns in parts["recordings"]
        ]
        clips = [Clip(int(r), float(a), float(b), int(n), c) for r, a, b, n, c in parts["clips"]]
        dtype, width = np.dtype(_DTYPES[_DTYPES.index(parts["dtype"])]), int(parts["width"])
        owners = [clip.recording for clip in clips]
        if not all(str(x.key[0]) for x in recordings) or width < 1:
            raise ValueError("a recording without a place, or embeddings without a width")
        if owners != sorted(owners) or (
            owners and not 0 <= owners[0] <= owners[-1] < len(recordings)
        ):
            raise ValueError("clips without a recording")
        if min((clip.rows for clip in clips), default=0) < 0:
            raise ValueError("clips with a negative number of rows")
        times = bool(parts["timestamps"])
        table = Table(recordings, clips, dict(parts["settings"]), width, dtype, times)
    except (LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"it was not written by this command ({error!r})") from error
    return table, parts


def combined(tables: Sequence[Table], order: Sequence[tuple[int, int]]) -> Table:
    """A table of recordings from several tables, in any order.

    Rows are read when they are used, so memory holds one block at a time.

    Args:
        tables: tables with the same settings; the result has those of the last one.
        order: for each recording the index of its table, and its index in that table.
    """
    recordings: list[Done] = []
    clips: list[Clip] = []
    runs: list[tuple[Reader, int, int]] = []
    for number, (t, r) in enumerate(order):
        table = tables[t]
        first, last = table.spans[r]
        recordings.append(table.recordings[r])
        clips += [dataclasses.replace(clip, recording=number) for clip in table.clips[first:last]]
        row = int(table.ends[first - 1]) if first else 0
        rows = (int(table.ends[last - 1]) if last else 0) - row
        if runs and runs[-1][0] is table.rows_of and sum(runs[-1][1:]) == row:
            row, rows = runs[-1][1], runs.pop()[2] + rows
        runs.append((table.rows_of, row, rows))
    newest = tables[-1]
    how = newest.settings, newest.width, newest.dtype, newest.timestamps
    return Table(recordings, clips, *how, rows_of=Runs(runs))


class Runs:
    """A reader of rows from several readers: (reader, its first row, number of rows) of each."""

    def __init__(self, runs: Sequence[tuple[Reader, int, int]]) -> None:
        self._runs = [run for run in runs if run[2]]
        self._ends = list(itertools.accumulate(run[2] for run in self._runs))

    def __call__(self, first: int, count: int) -> Block:
        """Rows `first` to `first + count`, in their order."""
        parts: list[tuple[Reader, int, int]] = []
        for i in range(bisect.bisect_right(self._ends, first), len(self._runs)):
            if count <= 0:
                break
            reader, start, rows = self._runs[i]
            skip = first - (self._ends[i] - rows)
            parts.append((reader, start + skip, min(count, rows - skip)))
            first, count = first + parts[-1][2], count - parts[-1][2]
        # In the order of storage, so that a block that holds several parts is read only once.
        order = sorted(range(len(parts)), key=lambda i: (id(parts[i][0]), parts[i][1]))
        blocks = {i: parts[i][0](*parts[i][1:]) for i in order}
        return joined([blocks[i] for i in range(len(parts))])


def cut(block: Block, first: int, count: int) -> Block:
    """Some of the rows of a block."""
    times = None if block.times_ms is None else block.times_ms[first : first + count]
    return Block(block.rows[first : first + count], times)


def joined(blocks: Sequence[Block]) -> Block:
    """Neighbouring blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    times = [block.times_ms for block in blocks if block.times_ms is not None]
    rows = np.concatenate([block.rows for block in blocks])
    return Block(rows, np.concatenate(times) if times else None)


def _alike(values: list[Any]) -> list[Any]:
    """Values of one type: bool, int, float, or text when they differ."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and all(abs(value) < 2**63 for value in values if value is not None):
        kind: type = float if float in kinds else int
    else:
        kind = bool if kinds == {bool} else str
    return [None if value is None else kind(value) for value in values]
