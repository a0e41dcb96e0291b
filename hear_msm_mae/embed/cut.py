"""One recording -> clips -> groups of units, in memory that does not grow with its length."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..api import TOO_LOUD
from ..audio import stream_audio
from ..config import HOP_LENGTH, SAMPLE_RATE, SAMPLES_PER_MS, ModelConfig, num_frames
from ..files import printable
from ..log_mel import CONTEXT_FRAMES, SILENCE, LogMel, Statistics
from ..model import HearModel
from ..options import Options
from ..timeline import (
    Piece,
    Track,
    Unit,
    hop_tracks,
    place,
    scene_track,
    split_units,
    timestamp_grid,
)
from .inputs import Task
from .remote import local_copy

BLOCK_SECONDS = 30.0  # of a recording that are transformed at once

# Makes the blocks of a clip's waveform, from a given sample on.
_Read = Callable[[int], Iterator[NDArray[np.float32]]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is the same for all recordings.

    Attributes:
        timestamps: embeddings over time, not one per clip.
        segment, step: length and distance of windows in samples; None: no windows.
    """

    config: ModelConfig
    options: Options
    frontend: LogMel
    timestamps: bool
    segment: int | None = None
    step: int | None = None

    def tracks(self, samples: int) -> list[Track]:
        """Patches that a clip of so many samples needs."""
        if not self.timestamps or self.options.mode == "paper":
            return [scene_track(samples, self.config)]
        return hop_tracks(samples, self.config, self.options.timestamp_hop_ms)

    def times_ms(self, samples: int) -> NDArray[np.float64]:
        """Timestamps of a clip of so many samples, from its beginning."""
        if self.options.mode == "paper":
            count = scene_track(samples, self.config).columns
            return np.arange(count, dtype=np.float64) * (samples / SAMPLES_PER_MS / count)
        return timestamp_grid(samples, self.config, self.options.timestamp_hop_ms)


def make_plan(
    model: HearModel, timestamps: bool, segment: float | None = None, overlap: float = 0.0
) -> Plan:
    """Check the windows and take what is needed from the model.

    Args:
        segment, overlap: length of windows and what neighbours share, in seconds.

    Raises:
        ValueError: impossible windows.
    """
    frontend = copy.deepcopy(model.frontend).cpu()
    plan = Plan(model.config, model.options, frontend, timestamps)
    if segment is None:
        if overlap:
            raise ValueError("overlap needs a segment: the length of the windows in seconds")
        return plan
    if not 0.01 <= segment < float("inf"):
        raise ValueError(f"segment must be at least 0.01 seconds, got {segment}")
    if not 0 <= overlap < segment:
        raise ValueError(f"overlap must be at least 0 and below the segment, got {overlap}")
    length, step = round(segment * SAMPLE_RATE), round((segment - overlap) * SAMPLE_RATE)
    if step < 1:
        raise ValueError(f"overlap {overlap} leaves no step between segments of {segment} s")
    return dataclasses.replace(plan, segment=length, step=step)


class Group(NamedTuple):
    """Neighbouring units of a clip: the smallest step of the work.

    Attributes:
        clip, number: number of the clip (window) in its task and of the group in its clip.
        start: where the clip begins, in samples of the file.
        pieces, units: places and (f, t) normalised log-mel of each unit.
        weights: scene embeddings only: for each unit, the weight of each kept column.
        rows: timestamps only: for each unit, the rows of its kept columns in the clip.
        samples: length of the clip; known in its last group only.
        last: whether the task ends here.
        position: how far the file was read, in seconds.
    """

    clip: int
    number: int
    start: int
    pieces: list[Piece]
    units: list[Tensor]
    weights: list[NDArray[np.float32]]
    rows: list[NDArray[np.int64]]
    samples: int | None
    last: bool
    position: float


def cut(task: Task, plan: Plan, first_clip: int = 0, first_group: int = 0) -> Iterator[Group]:
    """Decode a task's audio and cut it.

    Args:
        first_clip, first_group: leave out what comes before; an interrupted task goes on there.

    Raises:
        OSError, ValueError: the file cannot be read, or its values cannot be embedded.
    """
    begin = round(task.start * SAMPLE_RATE)

    with local_copy(task.path) as path:

        def read(sample: int) -> Iterator[NDArray[np.float32]]:
            start = (begin + sample) / SAMPLE_RATE
            for block in stream_audio(path, BLOCK_SECONDS, start, task.end):
                if max(-block.min(), block.max()) > TOO_LOUD:
                    raise ValueError(
                        f"{printable(task.path)}: samples reach {np.abs(block).max():.4g}; "
                        "expected values in [-1, 1]"
                    )
                yield block

        if plan.segment is None:
            for group in _cut_clip(read, plan, first_group):
                position = begin / SAMPLE_RATE + group.position
                last = group.samples is not None
                yield group._replace(start=begin, last=last, position=position)
            return
        for number, first, window, last in _windows(read, plan, first_clip):
            skip = first_group if number == first_clip else 0
            position = (begin + first + len(window)) / SAMPLE_RATE
            for group in _cut_clip(_in_memory(window), plan, skip):
                yield group._replace(
                    clip=number,
                    start=begin + first,
                    last=last and group.samples is not None,
                    position=position,
                )


def _in_memory(window: NDArray[np.float32]) -> _Read:
    return lambda sample: iter([window[sample:]])


def _windows(
    read: _Read, plan: Plan, number: int
) -> Iterator[tuple[int, int, NDArray[np.float32], bool]]:
    """(number, first sample, samples, is the last) of each window from a given number on.

    The last one is the first that reaches the end of the audio; it may be shorter.
    """
    assert plan.segment is not None
    assert plan.step is not None
    waveform, offset = np.zeros(0, np.float32), number * plan.step
    for block in read(offset):
        waveform = np.concatenate([waveform, block])
        # Strictly longer: a window that ends with the audio is the last one.
        while len(waveform) > plan.segment:
            yield number, offset, waveform[: plan.segment], False
            number, offset, waveform = number + 1, offset + plan.step, waveform[plan.step :]
    yield number, offset, waveform, True


def _cut_clip(read: _Read, plan: Plan, index: int) -> Iterator[Group]:
    """Groups of one clip from a given index on."""
    config = plan.config
    normalize = _normalizer(read, plan)
    step = config.unit_frames
    # Patches may begin up to one patch before the frame of their number.
    base = index * step - config.patch_frames
    context = max(0, base - CONTEXT_FRAMES)
    buffer = torch.zeros(config.n_mels, 0)  # (f, t) normalised, from frame `base`
    if base < 0:
        buffer = normalize(torch.full((config.n_mels, -base), SILENCE))
    samples = context * HOP_LENGTH

    def counted() -> Iterator[NDArray[np.float32]]:
        nonlocal samples
        for block in read(context * HOP_LENGTH):
            samples += len(block)
            yield block

    def group(pieces: list[Piece], length: int | None) -> Group:
        units = [buffer[:, piece.start - base : piece.stop - base] for piece in pieces]
        columns = [piece.unit.first + np.arange(piece.unit.columns) for piece in pieces]
        weights, rows = [], []
        if plan.timestamps:
            tracks = 1 + max(piece.track for piece in pieces)
            rows = [piece.track + tracks * c for piece, c in zip(pieces, columns, strict=True)]
        else:
            weights = [_column_weights(c, plan, length) for c in columns]
        position = samples / SAMPLE_RATE
        return Group(0, index, 0, pieces, units, weights, rows, length, False, position)

    for frames in plan.frontend.stream(counted(), max(0, base) - context):
        if not frames.isfinite().all():
            raise ValueError("sample values too large for a power spectrum")
        buffer = torch.cat([buffer, normalize(frames)], dim=1)
        # The clip has at least the samples under the frames that are there. A unit with a column
        # behind it is the same however the clip goes on.
        known = plan.tracks(max(1, (base + buffer.shape[1] - 1) * HOP_LENGTH))
        columns = min(track.columns for track in known)
        while (index + 1) * config.columns < columns:
            unit = Unit(index * config.columns, config.columns)
            yield group([place(k, t, unit, config) for k, t in enumerate(known)], None)
            index += 1
        drop = max(0, index * step - config.patch_frames - base)
        buffer, base = buffer[:, drop:], base + drop
    pieces = [
        place(k, track, unit, config)
        for k, track in enumerate(plan.tracks(samples))
        for unit in split_units(track.columns, config.columns)[index:]
    ]
    buffer = _padded(buffer, max(piece.stop for piece in pieces) - base, plan, normalize)
    yield group(pieces, samples)


def _padded(
    buffer: Tensor, frames: int, plan: Plan, normalize: Callable[[Tensor], Tensor]
) -> Tensor:
    """Silence behind the end of the clip; in paper mode the mean."""
    missing = max(0, frames - buffer.shape[1])
    if plan.options.mode == "paper":
        return F.pad(buffer, (0, missing))
    silence = normalize(torch.full((len(buffer), missing), SILENCE))
    return torch.cat([buffer, silence], dim=1)


def _column_weights(
    columns: NDArray[np.int64], plan: Plan, samples: int | None
) -> NDArray[np.float32]:
    """Frames of the clip in each column: its weight in the scene embedding (see scene_weights)."""
    width = plan.config.patch_frames
    if plan.options.mode == "paper":  # every patch counts alike, however little it holds
        return np.ones(len(columns), np.float32)
    if samples is None:
        return np.full(len(columns), width, np.float32)
    return np.minimum(num_frames(samples) - columns * width, width).astype(np.float32)


def _normalizer(read: _Read, plan: Plan) -> Callable[[Tensor], Tensor]:
    """Stored statistics, or those of the clip in a pass of its own."""
    if plan.options.normalization != "batch":
        return plan.frontend.normalize
    statistics = Statistics(plan.frontend.norm_mean.item())
    for frames in plan.frontend.stream(read(0)):
        statistics.add(frames)
    return statistics.normalizer()
