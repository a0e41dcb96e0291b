"""Decode a recording, and cut it into windows and pieces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import stream_audio, waveform_of
from ..checks import LOUD, TOO_LOUD, check_levels
from ..files import printable
from ..model import HearModel
from ..pooling import Sums
from ..timeline import Piece, Timeline
from .remote import local_copy
from .sources import Recording

BLOCK_SECONDS = 30.0  # length of the blocks in which a recording is decoded

_Read = Callable[[int], Iterator[Tensor]]  # yields blocks of the waveform from a given sample on


@dataclasses.dataclass(frozen=True)
class Plan:
    """Model and windows of a run; made by `make_plan`."""

    model: HearModel
    timeline: Timeline  # the frames that each embedding of a clip covers
    segment: int | None = None  # length of the windows in samples; None for one clip
    step: int = 0  # distance of the windows in samples


class Place(NamedTuple):
    """The place of a piece in a recording."""

    clip: int  # number of the clip (window) in the recording, from 0
    number: int  # number of the piece in the clip, from 0
    start: int  # first sample of the clip in the file
    samples: int | None  # length of the clip if it ends in this piece, else None
    last: bool  # whether the recording ends in this piece
    position: float  # end of the piece in the file, in seconds


class Resume(NamedTuple):
    """The next piece of an incomplete recording, and the sums of the earlier pieces of its clip."""

    clip: int
    number: int
    sums: Sums | None = None


FROM_START = Resume(0, 0)


def make_plan(
    model: HearModel, timestamps: bool, segment: float | None = None, overlap: float = 0.0
) -> Plan:
    """Check the windows, whose length and overlap are in seconds, and convert them into samples.

    Raises:
        ValueError: `segment` or `overlap` is impossible.
    """
    timeline, rate = model.timeline(timestamps), model.sample_rate
    if segment is None:
        if overlap:
            raise ValueError("overlap needs a segment: the length of the windows in seconds")
        return Plan(model, timeline)
    if not 0.01 <= segment < float("inf"):
        raise ValueError(f"segment must be at least 0.01 seconds, got {segment}")
    if not 0 <= overlap < segment:
        raise ValueError(f"overlap must be at least 0 and below the segment, got {overlap}")
    length, step = round(segment * rate), max(1, round((segment - overlap) * rate))
    return Plan(model, timeline, length, step)


def cut(
    recording: Recording, plan: Plan, begin: Resume = FROM_START
) -> Iterator[tuple[Place, Piece]]:
    """Decode a recording, and yield its pieces and their places from the piece `begin` on.

    Raises:
        OSError, ValueError: the file cannot be read, or its values cannot be embedded.
    """
    timeline, rate = plan.timeline, plan.model.sample_rate
    start = round(recording.start * rate)
    in_memory = recording.item is not None
    source: Any = (
        nullcontext(_waveform(recording, rate)) if in_memory else local_copy(recording.where)
    )
    with source as opened:

        def read(sample: int) -> Iterator[Tensor]:
            return _blocks(recording, opened, start + sample, rate)

        for clip, first, samples, is_last in _windows(read, plan, begin.clip):
            statistics = None
            if plan.model.options.normalization == "batch":  # the clip is read once more for these
                scenes = dataclasses.replace(timeline, hop_ms=None)
                statistics = plan.model.statistics(scenes.cut(samples(0)))
            skip = begin.number if clip == begin.clip else 0
            blocks = samples(timeline.first_sample(skip))
            for number, piece in enumerate(timeline.cut(blocks, skip, statistics), skip):
                length = piece.samples or timeline.first_sample(number + 1)
                position = (start + first + length) / rate
                last = is_last and piece.samples is not None
                yield Place(clip, number, start + first, piece.samples, last, position), piece


def _windows(read: _Read, plan: Plan, number: int) -> Iterator[tuple[int, int, _Read, bool]]:
    """(number, first sample, its samples, is the last) of each window from a given number on.

    The first window that reaches the end of the audio is the last one; it may be shorter.
    """
    if plan.segment is None:
        yield 0, 0, read, True
        return

    def held(window: Tensor) -> _Read:
        return lambda sample: iter([window[sample:]])

    waveform, offset = torch.zeros(0), number * plan.step
    for block in read(offset):
        waveform = torch.cat([waveform, block])
        # Strictly longer: a window that ends with the audio is the last one.
        while len(waveform) > plan.segment:
            yield number, offset, held(waveform[: plan.segment]), False
            number, offset, waveform = number + 1, offset + plan.step, waveform[plan.step :]
    yield number, offset, held(waveform), True


def _blocks(recording: Recording, opened: Any, sample: int, rate: int) -> Iterator[Tensor]:
    """Blocks of the waveform from a sample of the file on, with their levels checked."""
    if recording.item is None:
        channel = "mix" if recording.channel is None else recording.channel
        begin, end = sample / rate, recording.end
        blocks = stream_audio(opened, BLOCK_SECONDS, begin, end, channel=channel, sample_rate=rate)
    else:
        stop = None if recording.end is None else round(recording.end * rate)
        if sample >= len(opened):
            seconds = len(opened) / rate
            raise ValueError(f"no audio from {sample / rate} s on; it has {seconds:g} s")
        blocks = iter([opened[sample:stop]])
    limit = LOUD
    for block in blocks:
        low, high = float(block.min()), float(block.max())
        if max(-low, high) > limit:
            check_levels(low, high, printable(recording.path))
            limit = TOO_LOUD  # one warning per recording
        yield torch.from_numpy(block)


def _waveform(recording: Recording, rate: int) -> NDArray[np.float32]:
    """(n,) audio in memory, mixed and resampled."""
    name, channel = printable(recording.path), recording.channel
    how: dict[str, Any] = {"channel": "mix" if channel is None else channel, "sample_rate": rate}
    waveform: NDArray[np.float32] = waveform_of(recording.item, name=name, **how)
    if not len(waveform):
        raise ValueError("holds no audio samples")
    return waveform
