"""Step 4: which frames each embedding covers, in integer arithmetic, so that nothing drifts.

A *track* is a sequence of neighbouring patches over a clip. Scene embeddings need one track, from
frame 0. Timestamps closer than a patch width need several, each shifted by one timestamp hop;
their embeddings are interleaved. Tracks are cut into *units*, the inputs of the encoder, and clips
into *pieces*: about a minute of units, with all samples that their frames need. Pieces can be
embedded alone and in any order.

Only this file handles the modes. "default" surrounds the clip with silence, encodes the last unit
at its true length, and centres timestamps. The published runtimes "paper" (MSM-MAE) and "m2d" (M2D)
surround the clip with the mean and weigh all patches alike; their timestamps begin at 0, one patch
apart. "paper" also fills the last unit up to its whole length.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import MS_PER_FRAME, ModelConfig

# Longest piece. With longer pieces a killed run would lose more; with shorter ones more log-mel
# frames would be computed twice.
PIECE_FRAMES = 6000  # 60 s

# Frames of context on both sides of a piece. Two hide the edge. A third leaves more than a window
# before the end of the clip, which the reflection at the end needs.
CONTEXT_FRAMES = 3


class Track(NamedTuple):
    """Patch k of the track starts at frame `start` + k * patch width; frames < 0 are silence."""

    start: int
    columns: int


class Units(NamedTuple):
    """Units of one length in a piece.

    Attributes:
        columns: length of the units in patches.
        starts: (u,) first frame of each unit, counted from the piece's first sample.
        rows: (u, columns) index of each column's embedding in the piece, in order of time.
        weights: (u, columns) frames of the clip in each column: its weight in the scene embedding.
    """

    columns: int
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]


class Layout(NamedTuple):
    """Frames and units of a piece; clips of equal length have equal layouts.

    Attributes:
        scene: whether the embeddings are summed to a scene embedding.
        first, last: range of log-mel frames, counted from the piece's first sample.
        silence: True if silence surrounds the clip, False for the mean.
        unit_frames: length in frames to which every unit is padded; 0 for no padding.
        units: the units, grouped by length.
        rows: number of embeddings.
        weight: sum of their weights.
    """

    scene: bool
    first: int
    last: int
    silence: bool
    unit_frames: int
    units: tuple[Units, ...]
    rows: int
    weight: float


class Piece(NamedTuple):
    """A part of one clip that can be embedded alone.

    Attributes:
        waveform: (n,) float samples, with context.
        layout: its frames and units.
        samples: length of the clip if it ends in this piece, else None.
        statistics: mean and standard deviation for the normalisation; by default the stored ones.
    """

    waveform: Tensor
    layout: Layout
    samples: int | None = None
    statistics: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Frames and timestamps of the embeddings of a clip.

    Attributes:
        config: sizes of the model.
        mode: "default", "paper" or "m2d".
        hop_ms: distance of the timestamps in ms; None for scene embeddings.
    """

    config: ModelConfig
    mode: str = "default"
    hop_ms: int | None = None

    @property
    def piece_units(self) -> int:
        """Number of whole units in a piece."""
        return max(1, PIECE_FRAMES // self.config.unit_frames)

    def tracks(self, samples: int) -> tuple[Track, ...]:
        """Tracks of a clip. Embedding i of the clip is in track i % len(tracks)."""
        width = self.config.patch_frames
        if self.hop_ms is None or self.mode != "default":
            return (Track(0, -(-self.config.num_frames(samples) // width)),)
        centre_ms = MS_PER_FRAME * (width - 1) // 2
        first_ms, count = self._grid(samples)
        if not count:
            middle_ms = self._ms(samples) / 2
            return (Track(round((middle_ms - centre_ms) / MS_PER_FRAME), 1),)
        shifts = min(self.config.native_hop_ms // self.hop_ms, count)
        starts = [(first_ms - centre_ms + k * self.hop_ms) // MS_PER_FRAME for k in range(shifts)]
        return tuple(Track(s, len(range(k, count, shifts))) for k, s in enumerate(starts))

    def timestamps_ms(self, samples: int) -> NDArray[np.float64]:
        """Timestamps of a clip in ms: the centres of the patches, (t,).

        A patch from frame s is centred at 10 s + 5 (patch width - 1) ms. All centres on the grid of
        `hop_ms` inside the clip are used; patches may reach beyond its ends, where they see
        silence. A clip that is too short for any gets one timestamp at its middle. In the published
        runtimes they are i * length / count.
        """
        assert self.hop_ms is not None
        if self.mode != "default":
            count = self.tracks(samples)[0].columns
            return np.arange(count, dtype=np.float64) * (self._ms(samples) / count)
        first_ms, count = self._grid(samples)
        if not count:
            return np.array([self._ms(samples) / 2])
        # int64 milliseconds are exact.
        return (first_ms + self.hop_ms * np.arange(count, dtype=np.int64)).astype(np.float64)

    def count_pieces(self, samples: int) -> int:
        """Number of pieces of a clip; a longer clip never has fewer."""
        columns = max(track.columns for track in self.tracks(samples))
        pieces = -(-columns // (self.piece_units * self.config.columns))
        # A clip that ends before the context of a piece of whole units does ends in that piece.
        while pieces > 1 and samples < self._last_sample(pieces - 2):
            pieces -= 1
        return pieces

    def first_sample(self, number: int) -> int:
        """First sample of a piece in its clip."""
        frame = number * self.piece_units * self.config.unit_frames
        early = 0 if self.hop_ms is None else self.config.patch_frames  # of shifted tracks
        return max(0, frame - early - CONTEXT_FRAMES) * self.config.hop_length

    def cut(
        self,
        blocks: Iterable[Tensor],
        number: int = 0,
        statistics: tuple[float, float] | None = None,
    ) -> Iterator[Piece]:
        """Cut a clip into pieces while its samples arrive.

        Args:
            blocks: (n,) consecutive parts of the waveform from `first_sample(number)` on, with at
                least one sample in all.
            number: number of the first piece to yield.
            statistics: see `Piece`.

        Yields:
            The pieces from `number` on, each as soon as its samples have arrived.
        """
        start = self.first_sample(number)
        buffer = torch.zeros(0, dtype=torch.float32)
        for block in blocks:
            buffer = torch.cat([buffer, block]) if len(buffer) else block
            total = start + len(buffer)
            while self.count_pieces(total) > number + 1:
                waveform = buffer[: self._last_sample(number) - start]
                yield Piece(waveform, self.layout(number), None, statistics)
                number += 1
                buffer = buffer[self.first_sample(number) - start :]
                start = self.first_sample(number)
        samples = start + len(buffer)
        yield Piece(buffer, self.layout(number, samples), samples, statistics)

    @functools.lru_cache(maxsize=4096)  # noqa: B019  (the key is a small frozen dataclass)
    def layout(self, number: int, samples: int | None = None) -> Layout:
        """Frames and units of a piece.

        Args:
            number: number of the piece in its clip.
            samples: length of the clip if this is its last piece. None for a piece of whole units,
                which has samples up to `_last_sample`.
        """
        whole, width = self.config.columns, self.config.patch_frames
        first_column = number * self.piece_units * whole
        offset = self.first_sample(number) // self.config.hop_length
        frames = float("inf")  # of the clip
        if samples is not None:
            tracks = self.tracks(samples)
            end = frames = self.config.num_frames(samples)
        else:  # the clip continues, so the piece consists of whole units
            known = self._last_sample(number) + width * self.config.hop_length
            stop = first_column + self.piece_units * whole
            tracks = tuple(track._replace(columns=stop) for track in self.tracks(known))
            end = self._last_frame(number)
        units: dict[int, list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]] = {}
        for index, track in enumerate(tracks):
            for column in range(first_column, track.columns, whole):
                columns = np.arange(column, min(column + whole, track.columns))
                rows = index + len(tracks) * (columns - first_column)
                weights = np.full(len(columns), float(width))
                if self.mode == "default":  # the frames of the clip in each column
                    weights = np.minimum(frames - columns * width, weights)
                start = track.start + column * width - offset
                units.setdefault(len(columns), []).append((start, rows, weights))
        lowest = min(start for group in units.values() for start, *_ in group)
        grouped = tuple(
            Units(columns, np.array(s), np.stack(r), np.stack(w))
            for columns, group in sorted(units.items(), reverse=True)
            for s, r, w in [zip(*group, strict=True)]
        )
        return Layout(
            scene=self.hop_ms is None,
            first=max(lowest, 0),
            last=end - offset,
            silence=self.mode == "default",
            unit_frames=self.config.unit_frames if self.mode == "paper" else 0,
            units=grouped,
            rows=sum(group.rows.size for group in grouped),
            weight=float(sum(group.weights.sum() for group in grouped)),
        )

    def _last_frame(self, number: int) -> int:
        """One plus the last frame of a piece of whole units, for any shift of the track."""
        late = 0 if self.hop_ms is None else self.config.patch_frames
        return (number + 1) * self.piece_units * self.config.unit_frames + late

    def _last_sample(self, number: int) -> int:
        """One plus the last sample that a piece of whole units needs."""
        return (self._last_frame(number) + CONTEXT_FRAMES) * self.config.hop_length

    def _grid(self, samples: int) -> tuple[int, int]:
        """First timestamp in ms, and number of timestamps."""
        assert self.hop_ms is not None
        first_ms = MS_PER_FRAME * (self.config.patch_frames - 1) // 2 % self.hop_ms
        samples_per_ms = self.config.sample_rate // 1000
        room = samples - first_ms * samples_per_ms
        return first_ms, 0 if room < 0 else 1 + room // (self.hop_ms * samples_per_ms)

    def _ms(self, samples: int) -> float:
        return samples / (self.config.sample_rate // 1000)


def gather_units(
    pieces: Sequence[Piece], bases: Sequence[int], rows: NDArray[np.int64], patch_frames: int
) -> dict[int, list[NDArray[Any]]]:
    """Indices that gather the units of many pieces, so that they can be encoded together.

    Args:
        pieces: the pieces.
        bases: for each piece the row of its first log-mel frame.
        rows: for each piece the row of its first embedding.
        patch_frames: width of a patch in frames.

    Returns:
        By length in columns, three arrays with a row for each unit: rows of its log-mel frames
        (u, t), rows of its embeddings (u, columns), and weights (u, columns).
    """
    found: dict[int, list[tuple[NDArray[Any], ...]]] = {}
    for piece, base, row in zip(pieces, bases, rows[:-1], strict=True):
        layout = piece.layout
        for units in layout.units:
            frames = np.arange(layout.unit_frames or units.columns * patch_frames)
            index = units.starts[:, None] - layout.first + 1 + frames
            index = base + index.clip(0, layout.last - layout.first + 1)
            target = row + (np.zeros_like(units.rows) if layout.scene else units.rows)
            found.setdefault(units.columns, []).append((index, target, units.weights))
    return {
        columns: [np.concatenate(arrays) for arrays in zip(*found[columns], strict=True)]
        for columns in sorted(found, reverse=True)
    }


def valid_hops_ms(config: ModelConfig) -> list[int]:
    """Timestamp hops a model can have: multiples of 10 ms that divide its patch width."""
    width = config.patch_frames
    return [MS_PER_FRAME * hop for hop in range(1, width + 1) if width % hop == 0]


def split_units(columns: int, unit_columns: int) -> list[tuple[int, int]]:
    """First column and end (exclusive) of each unit; the last unit may be shorter.

    >>> split_units(30, 13)
    [(0, 13), (13, 26), (26, 30)]
    """
    return [(c, min(c + unit_columns, columns)) for c in range(0, columns, unit_columns)]
