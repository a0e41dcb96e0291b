"""What an output holds: a list of clips, and their embeddings as a stream of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE


class Clip(NamedTuple):
    """A clip of the output.

    Attributes:
        path: of the file, as `hear_msm_mae.audio.printable` shows it.
        start, end: in the file, in seconds.
        rows: number of embeddings.
        name: path in an output that mirrors the input.
        file_end: whether the recording is known to end here.
    """

    path: str
    start: float
    end: float
    rows: int
    name: str
    file_end: bool = False


def with_file_ends(
    clips: list[Clip], settings: dict[str, Any], ends: Iterable[Any] | None
) -> list[Clip]:
    """Clips read from an output, with `file_end` as it was stored for them.

    Nothing is stored where only whole recordings were asked for: each ends with its last clip.
    """
    if not settings["stretches"]:
        last = {clip.path: number for number, clip in enumerate(clips)}
        ends = [last[clip.path] == number for number, clip in enumerate(clips)]
    if ends is None:
        return clips
    return [clip._replace(file_end=bool(end)) for clip, end in zip(clips, ends, strict=True)]


class Block(NamedTuple):
    """Consecutive rows: (r, d) embeddings and, for timestamps, (r,) ms in the file."""

    rows: NDArray[np.floating]
    times_ms: NDArray[np.float64] | None


@dataclasses.dataclass
class Content:
    """Clips, and the function that iterates over their rows in the same order."""

    clips: list[Clip]
    settings: dict[str, Any]
    width: int
    dtype: np.dtype[np.floating]
    timestamps: bool
    blocks: Callable[[], Iterator[Block]]

    @property
    def total_rows(self) -> int:
        """Rows of all clips."""
        return sum(clip.rows for clip in self.clips)

    def indexed(self) -> Iterator[tuple[NDArray[np.int64], Block]]:
        """Blocks with the index of the clip of each row."""
        ends = np.cumsum([clip.rows for clip in self.clips], dtype=np.int64)
        row = 0
        for block in self.blocks():
            numbers = np.arange(row, row + len(block.rows))
            yield np.searchsorted(ends, numbers, side="right"), block
            row += len(block.rows)
        if row != self.total_rows:
            raise ValueError(f"found {row} rows of {self.total_rows}; the output is damaged")

    def where(self, keep: Sequence[bool]) -> Content:
        """Only some of the clips."""
        mask = np.array(keep, bool)

        def blocks() -> Iterator[Block]:
            for index, block in self.indexed():
                chosen = mask[index]
                times = None if block.times_ms is None else block.times_ms[chosen]
                if chosen.any():
                    yield Block(block.rows[chosen], times)

        clips = [clip for clip, kept in zip(self.clips, keep, strict=True) if kept]
        return dataclasses.replace(self, clips=clips, blocks=blocks)

    def updated(self, new: Content, by_file: bool = False) -> Content:
        """With new clips behind; those that the new content has too are taken from there alone.

        Args:
            new: of the same settings.
            by_file: take all clips of a file that the new content has from there.
        """

        def places(clip: Clip) -> Iterator[Any]:
            return iter([clip.path]) if by_file else _places(clip)

        again = {place for clip in new.clips for place in places(clip)}
        old = self.where([again.isdisjoint(places(clip)) for clip in self.clips])

        def blocks() -> Iterator[Block]:
            yield from old.blocks()
            yield from new.blocks()

        stretches = self.settings["stretches"] or new.settings["stretches"]
        settings = new.settings | {"stretches": stretches}
        clips = old.clips + new.clips
        return dataclasses.replace(new, clips=clips, settings=settings, blocks=blocks)


def _places(clip: Clip) -> Iterator[tuple[str, int, int | None]]:
    """Two clips are the same one when they share a place: where the file's end moves, it moves."""
    first, last = samples(clip)
    yield clip.path, first, last
    if clip.file_end:
        yield clip.path, first, None


def samples(clip: Clip) -> tuple[int, int]:
    """First sample, and the one behind the last."""
    return round(clip.start * SAMPLE_RATE), round(clip.end * SAMPLE_RATE)


def whole_files(content: Content) -> bool:
    """Whether there is one clip per file, which begins with the file."""
    return not content.settings["stretches"] and content.settings["segment"] is None


def merged(blocks: Iterator[tuple[NDArray[np.int64], Block]], size: int = 2**24) -> Iterator[Any]:
    """Join small blocks to ones of about `size` bytes, for formats that store them one by one."""
    waiting: list[tuple[NDArray[np.int64], Block]] = []
    total = 0
    for item in blocks:
        waiting.append(item)
        total += item[1].rows.nbytes
        if total >= size:
            yield _joined(waiting)
            waiting, total = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(items: list[tuple[NDArray[np.int64], Block]]) -> tuple[NDArray[np.int64], Block]:
    times = [block.times_ms for _, block in items if block.times_ms is not None]
    return np.concatenate([index for index, _ in items]), Block(
        np.concatenate([block.rows for _, block in items]),
        np.concatenate(times) if times else None,
    )
