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
    """Model and windows of a run; made by `make_plan`.

    Attributes:
        timeline: the frames that each embedding of a clip covers.
        segment: length of the windows in samples; None means that a recording is one clip.
        step: distance of the windows in samples.
    """

    model: HearModel
    timeline: Timeline
    segment: int | None = None
    step: int = 0

    @property
    def sample_rate(self) -> int:
        """Sample rate of the model's waveforms in Hz."""
        return self.model.sample_rate


def make_plan(
    model: HearModel, timestamps: bool, segment: float | None = None, overlap: float = 0.0
) -> Plan:
    """Check the length of the windows, and convert it into samples.

    Args:
        model: from `load_model`.
        timestamps: True for embeddings over time, False for one embedding per clip.
        segment: length of the windows in seconds; None means that a recording is one clip.
        overlap: seconds that neighbouring windows share.

    Raises:
        ValueError: `segment` or `overlap` is impossible.
    """
    plan = Plan(model, model.timeline(timestamps))
    if segment is None:
        if overlap:
            raise ValueError("overlap needs a segment: the length of the windows in seconds")
        return plan
    if not 0.01 <= segment < float("inf"):
        raise ValueError(f"segment must be at least 0.01 seconds, got {segment}")
    if not 0 <= overlap < segment:
        raise ValueError(f"overlap must be at least 0 and below the segment, got {overlap}")
    rate = plan.sample_rate
    length, step = round(segment * rate), round((segment - overlap) * rate)
    if step < 1:
        raise ValueError(f"overlap {overlap} leaves no step between segments of {segment} s")
    return dataclasses.replace(plan, segment=length, step=step)


class Place(NamedTuple):
    """The place of a piece in a recording.

    Attributes:
        clip: number of the clip (window) in the recording, from 0.
        number: number of the piece in the clip, from 0.
        start: first sample of the clip in the file.
        samples: length of the clip if it ends in this piece, else None.
        last: whether the recording ends in this piece.
        position: end of the piece in the file, in seconds.
    """

    clip: int
    number: int
    start: int
    samples: int | None
    last: bool
    position: float


class Resume(NamedTuple):
    """The next piece of an incomplete recording, and the sums of the earlier pieces of its clip."""

    clip: int
    number: int
    sums: Sums | None = None


def cut(recording: Recording, plan: Plan, begin: Resume) -> Iterator[tuple[Place, Piece]]:
    """Decode a recording and cut it into pieces.

    Args:
        recording: the recording.
        plan: the windows.
        begin: first piece to return; earlier ones are skipped.

    Yields:
        Each piece and its place.

    Raises:
        OSError, ValueError: the file cannot be read, or its values cannot be embedded.
    """
    start = round(recording.start * plan.sample_rate)
    if recording.item is None:
        source: Any = local_copy(recording.path)
    else:
        source = nullcontext(_in_memory(recording, plan.sample_rate))
    with source as opened:

        def read(sample: int) -> Iterator[Tensor]:
            return _blocks(recording, opened, start + sample, plan.sample_rate)

        if plan.segment is None:
            yield from _cut_clip(read, plan, begin, Place(0, 0, start, None, True, 0.0))
            return
        for number, first, window, last in _windows(read, plan, begin.clip):
            skip = begin if number == begin.clip else Resume(number, 0)
            place = Place(number, 0, start + first, None, last, 0.0)
            yield from _cut_clip(_held(window), plan, skip, place)


def _cut_clip(
    read: _Read, plan: Plan, begin: Resume, place: Place
) -> Iterator[tuple[Place, Piece]]:
    timeline, statistics = plan.timeline, None
    if plan.model.options.normalization == "batch":  # the clip is read once more for these
        scenes = dataclasses.replace(timeline, hop_ms=None)
        statistics = plan.model.statistics(scenes.cut(read(0)))
    blocks = read(timeline.first_sample(begin.number))
    for number, piece in enumerate(timeline.cut(blocks, begin.number, statistics), begin.number):
        ends = piece.samples is not None
        read_to = place.start + (piece.samples or timeline.first_sample(number + 1))
        yield (
            place._replace(
                number=number,
                samples=piece.samples,
                last=place.last and ends,
                position=read_to / plan.sample_rate,
            ),
            piece,
        )


def _held(window: Tensor) -> _Read:
    return lambda sample: iter([window[sample:]])


def _windows(read: _Read, plan: Plan, number: int) -> Iterator[tuple[int, int, Tensor, bool]]:
    """(number, first sample, waveform, is the last) of each window from a given number on.

    The first window that reaches the end of the audio is the last one; it may be shorter.
    """
    assert plan.segment is not None
    waveform, offset = torch.zeros(0), number * plan.step
    for block in read(offset):
        waveform = torch.cat([waveform, block])
        # Strictly longer: a window that ends with the audio is the last one.
        while len(waveform) > plan.segment:
            yield number, offset, waveform[: plan.segment], False
            number, offset, waveform = number + 1, offset + plan.step, waveform[plan.step :]
    yield number, offset, waveform, True


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


def _in_memory(recording: Recording, rate: int) -> NDArray[np.float32]:
    channel = "mix" if recording.channel is None else recording.channel
    waveform: NDArray[np.float32] = waveform_of(
        recording.item, channel=channel, sample_rate=rate, name=printable(recording.path)
    )
    if not len(waveform):
        raise ValueError("holds no audio samples")
    return waveform
