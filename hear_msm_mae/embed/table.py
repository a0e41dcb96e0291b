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

Reader = Callable[[int, int], NDArray[np.floating]]  # (first row, number of rows) -> (r, d)


class Block(NamedTuple):
    """Consecutive rows: (r, d) embeddings and, with timestamps, (r,) times in the file in ms."""

    rows: NDArray[np.floating]
    times_ms: NDArray[np.float64] | None


@dataclasses.dataclass(slots=True)
class Clip:
    """A clip of a recording."""

    recording: int  # index of its recording
    start: float  # place in the file in seconds
    end: float
    rows: int  # number of embeddings
    channel: int | None = None  # number of the channel, if one was chosen
    first_ms: float = 0.0  # first timestamp
    hop_ms: float = 0.0  # distance of the timestamps


@dataclasses.dataclass(slots=True)
class Done:
    """A recording that is complete in the output; the attributes are those of `Recording`."""

    key: list[Any]  # begins with the absolute path or URL
    path: str  # escaped for printing
    name: str
    stamp: Any = None
    columns: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Table:
    """Recordings, their clips in the same order, and their rows in the order of the clips."""

    recordings: list[Done]
    clips: list[Clip]
    settings: dict[str, Any]  # of the run, in types of JSON
    width: int  # size of an embedding
    dtype: np.dtype[Any]
    timestamps: bool  # whether rows have times
    read: Reader = None  # type: ignore[assignment]  # `from_json` does not set it

    @functools.cached_property
    def ends(self) -> NDArray[np.int64]:
        """(clips,) for each clip the index of its last row, plus one."""
        return np.cumsum([clip.rows for clip in self.clips], dtype=np.int64)

    @functools.cached_property
    def owners(self) -> list[int]:
        """(clips,) the recording of each clip."""
        return [clip.recording for clip in self.clips]

    @functools.cached_property
    def _times(self) -> NDArray[np.float64]:
        """(clips, 2) first timestamp and hop."""
        return np.array([(clip.first_ms, clip.hop_ms) for clip in self.clips])

    @property
    def total_rows(self) -> int:
        """Number of rows of all clips."""
        return int(self.ends[-1]) if self.clips else 0

    def clip_of(self, first: int, count: int) -> NDArray[np.int64]:
        """The index of the clip of each row."""
        return np.searchsorted(self.ends, np.arange(first, first + count), side="right")

    def times_ms(self, first: int, count: int) -> NDArray[np.float64] | None:
        """The time of each row in its file, in ms; None without timestamps."""
        if not self.timestamps:
            return None
        clips = self.clip_of(first, count)
        begins = np.concatenate([[0], self.ends])[clips]
        first_ms, hop_ms = self._times[clips].T
        return first_ms + hop_ms * (np.arange(first, first + count) - begins)

    def rows_of(self, first: int, count: int) -> Block:
        """Rows and their times.

        Raises:
            ValueError: there are fewer rows than the clips have.
        """
        rows = self.read(first, count)
        if len(rows) != count:
            raise ValueError(f"{count - len(rows)} rows are missing; the output is damaged")
        return Block(rows, self.times_ms(first, count))

    def indexed(self) -> Iterator[tuple[NDArray[np.int64], Block]]:
        """Blocks of about `BLOCK_BYTES` with the index of the clip of each row."""
        step = max(1, BLOCK_BYTES // (self.width * self.dtype.itemsize))
        for first in range(0, self.total_rows, step):
            count = min(step, self.total_rows - first)
            yield self.clip_of(first, count), self.rows_of(first, count)

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
        return {
            printable(name): _alike([x.columns.get(name) for x in self.recordings])
            for name in names
        }

    def to_json(self) -> str:
        """The table without its rows, for `from_json`."""
        parts = {
            "settings": self.settings,
            "width": self.width,
            "dtype": self.dtype.name,
            "timestamps": self.timestamps,
            "recordings": [[x.key, x.path, x.name, x.stamp, x.columns] for x in self.recordings],
            "clips": [
                [x.recording, x.start, x.end, x.rows, x.channel, x.first_ms, x.hop_ms]
                for x in self.clips
            ],
        }
        lines = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in parts.items())
        return f"{{\n{lines}\n}}\n"


def from_json(text: str | bytes) -> Table:
    """Read what `Table.to_json` wrote; the caller sets `read`.

    Raises:
        ValueError: `to_json` did not write it.
    """
    try:
        parts = json.loads(text)
        recordings = [
            Done(list(key), str(path), str(name), stamp, dict(columns))
            for key, path, name, stamp, columns in parts["recordings"]
        ]
        clips = [
            Clip(int(r), float(start), float(end), int(rows), channel, float(first), float(hop))
            for r, start, end, rows, channel, first, hop in parts["clips"]
        ]
        dtype, width = np.dtype(_DTYPES[_DTYPES.index(parts["dtype"])]), int(parts["width"])
        owners = [clip.recording for clip in clips]
        if not all(str(x.key[0]) for x in recordings) or width < 1:
            raise ValueError("a recording without a place, or embeddings without a width")
        if owners != sorted(owners) or not set(owners) <= set(range(len(recordings))):
            raise ValueError("clips without a recording")
        if any(clip.rows < 0 for clip in clips):
            raise ValueError("clips with a negative number of rows")
        times = bool(parts["timestamps"])
        return Table(recordings, clips, dict(parts["settings"]), width, dtype, times)
    except (LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"it was not written by this command ({error!r})") from error


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
        first, last = bisect.bisect_left(table.owners, r), bisect.bisect_right(table.owners, r)
        recordings.append(table.recordings[r])
        clips += [dataclasses.replace(clip, recording=number) for clip in table.clips[first:last]]
        row = int(table.ends[first - 1]) if first else 0
        rows = (int(table.ends[last - 1]) if last else 0) - row
        if runs and runs[-1][0] is table.read and sum(runs[-1][1:]) == row:
            row, rows = runs[-1][1], runs.pop()[2] + rows
        runs.append((table.read, row, rows))
    newest = tables[-1]
    how = newest.settings, newest.width, newest.dtype, newest.timestamps
    return Table(recordings, clips, *how, read=chained(runs))


def chained(runs: Sequence[tuple[Reader, int, int]]) -> Reader:
    """A reader of rows from several readers: (reader, its first row, number of rows) of each."""
    runs = [run for run in runs if run[2]]
    ends = list(itertools.accumulate(run[2] for run in runs))

    def read(first: int, count: int) -> NDArray[np.floating]:
        parts: list[tuple[Reader, int, int]] = []
        for i in range(bisect.bisect_right(ends, first), len(runs)):
            if count <= 0:
                break
            reader, start, rows = runs[i]
            skip = first - (ends[i] - rows)
            parts.append((reader, start + skip, min(count, rows - skip)))
            first, count = first + parts[-1][2], count - parts[-1][2]
        # In the order of storage, so that a block that holds several parts is read only once.
        order = sorted(range(len(parts)), key=lambda i: (id(parts[i][0]), parts[i][1]))
        found = {i: parts[i][0](*parts[i][1:]) for i in order}
        return np.concatenate([found[i] for i in range(len(parts))])

    return read


def _alike(values: list[Any]) -> list[Any]:
    """Values of one type: bool, int, float, or text when they differ."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and all(abs(value) < 2**63 for value in values if value is not None):
        kind: Callable[[Any], Any] = float if float in kinds else int
    else:
        kind = bool if kinds == {bool} else lambda value: printable(str(value))
    return [None if value is None else kind(value) for value in values]
