"""Recordings -> pieces, read ahead in threads -> the engine -> results, in order."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import stream_audio, waveform_of
from ..checks import LOUD, TOO_LOUD, check_levels
from ..files import available_cpus, printable
from ..model import HearModel
from ..pooling import Sums
from ..timeline import Piece, Timeline
from .remote import local_copy
from .sources import Failure, Recording

BLOCK_SECONDS = 30.0  # of a recording that are decoded at once
MAX_READERS = 16
QUEUED_PIECES = 2  # of a recording that wait for the engine: bounds the memory of a long one
AHEAD = 8  # recordings that are open or waiting, for each thread
_POLL_SECONDS = 0.2

_Read = Callable[[int], Iterator[Tensor]]  # makes the blocks of a waveform from a sample on


@dataclasses.dataclass(frozen=True)
class Plan:
    """How recordings are embedded; made by `make_plan`.

    Attributes:
        timeline: where the embeddings of a clip lie.
        segment, step: length and distance of windows in samples; None: no windows.
    """

    model: HearModel
    timeline: Timeline
    segment: int | None = None
    step: int = 0

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that the model takes, in Hz."""
        return self.model.sample_rate


def make_plan(
    model: HearModel, timestamps: bool, segment: float | None = None, overlap: float = 0.0
) -> Plan:
    """Check the windows.

    Args:
        timestamps: embeddings over time, not one per clip.
        segment, overlap: length of windows and what neighbours share, in seconds.

    Raises:
        ValueError: impossible windows.
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
    """Where a piece lies.

    Attributes:
        clip, number: of the clip (window) in the recording and of the piece in the clip.
        start: where the clip begins, in samples of the file.
        samples: length of the clip, known where it ends in this piece.
        last: whether the recording ends in this piece.
        position: how far the file was read, in seconds.
    """

    clip: int
    number: int
    start: int
    samples: int | None
    last: bool
    position: float


class Resume(NamedTuple):
    """Where a recording that was begun continues: clip, piece, and the sums of the clip so far."""

    clip: int
    number: int
    sums: Sums | None = None


class Result(NamedTuple):
    """The embeddings of one piece.

    Attributes:
        rows: (r, d) embeddings over time; scenes: one row with the last piece of a clip.
        sums: scenes: of the clip so far, while it is not complete.
    """

    recording: Recording
    place: Place
    rows: NDArray[np.floating]
    sums: Sums | None = None


@torch.inference_mode()
def embed_recordings(
    recordings: Iterable[Recording],
    plan: Plan,
    dtype: str = "float32",
    workers: int | None = None,
    resume: Resume | None = None,
) -> Generator[Result | tuple[Recording, Failure], None, None]:
    """Embed recordings in bounded memory; reading and encoding overlap.

    Args:
        dtype: of the rows, "float32" or "float16".
        workers: threads that read; by default one per processor, at most 16.
        resume: where the first recording continues.

    Yields:
        The results of each recording, one recording after the other in the order given, or what
        could not be read. A failure ends its recording; results of it may have come before.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    workers = workers or min(MAX_READERS, available_cpus())
    waiting: deque[tuple[Recording, Place | Failure]] = deque()

    def pieces() -> Iterator[Piece]:
        for recording, place, piece in _read_ahead(recordings, plan, workers, resume):
            waiting.append((recording, place))
            if piece is not None:
                yield piece

    total = None if resume is None else resume.sums
    for encoded in plan.model.encode(pieces()):
        while isinstance((event := waiting.popleft())[1], Failure):
            yield event  # type: ignore[misc]
        recording, place = event
        assert isinstance(place, Place)
        if isinstance(encoded, Tensor):
            yield Result(recording, place, encoded.cpu().numpy().astype(dtype, copy=False))
            continue
        encoded = Sums(encoded.moments.cpu(), encoded.weight)
        total = encoded if total is None or not place.number else total + encoded
        if place.samples is None:
            nothing = np.zeros((0, plan.model.scene_embedding_size), dtype)
            yield Result(recording, place, nothing, total)
        else:
            row = plan.model.pool(total)[None].numpy()
            yield Result(recording, place, row.astype(dtype, copy=False))
    yield from waiting  # type: ignore[misc]


def _read_ahead(
    recordings: Iterable[Recording], plan: Plan, workers: int, resume: Resume | None
) -> Iterator[tuple[Recording, Place | Failure, Piece | None]]:
    """Cut recordings in threads; what comes out, in order.

    Threads, not processes: libsndfile, PyAV and soxr release the interpreter lock while they work,
    and waveforms reach the engine without being copied.
    """
    stop = threading.Event()

    def work(recording: Recording, items: queue.Queue[Any], begin: Resume) -> None:
        for item in itertools.chain(_events(recording, plan, begin), [None]):
            while not stop.is_set():
                try:
                    items.put(item, timeout=_POLL_SECONDS)
                except queue.Full:
                    continue
                break
            if stop.is_set():
                return

    waiting: deque[tuple[Recording, queue.Queue[Any]]] = deque()
    begins = itertools.chain([resume or Resume(0, 0)], itertools.repeat(Resume(0, 0)))
    todo = zip(recordings, begins, strict=False)
    with ThreadPoolExecutor(workers, thread_name_prefix="reader") as pool:
        try:
            while True:
                for recording, begin in itertools.islice(todo, AHEAD * workers - len(waiting)):
                    waiting.append((recording, queue.Queue(QUEUED_PIECES)))
                    pool.submit(work, *waiting[-1], begin)
                if not waiting:
                    return
                item = waiting[0][1].get()
                if item is None:
                    waiting.popleft()
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield waiting[0][0], *item
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _events(
    recording: Recording, plan: Plan, begin: Resume
) -> Iterator[tuple[Place | Failure, Piece | None] | Exception]:
    """The pieces of a recording; what cannot be read ends it with a failure."""
    try:
        yield from cut(recording, plan, begin)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).removeprefix(f"{printable(recording.path)}: ")
        yield Failure(recording.path, recording.start, recording.end, reason), None
    except Exception as error:  # a defect: raised where the result is waited for
        yield error


def cut(recording: Recording, plan: Plan, begin: Resume) -> Iterator[tuple[Place, Piece]]:
    """Decode a recording and cut it into pieces.

    Args:
        begin: leave out what comes before.

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
    if plan.model.options.normalization == "batch":  # of the clip, in a pass of its own
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
    """(number, first sample, samples, is the last) of each window from a given number on.

    The last one is the first that reaches the end of the audio; it may be shorter.
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
            raise ValueError(f"no audio from {sample / rate} s on, it is shorter")
        blocks = iter([opened[sample:stop]])
    limit = LOUD
    for block in blocks:
        low, high = float(block.min()), float(block.max())
        if max(-low, high) > limit:
            check_levels(low, high, printable(recording.path))
            limit = TOO_LOUD  # one warning for each recording is enough
        yield torch.from_numpy(block)


def _in_memory(recording: Recording, rate: int) -> NDArray[np.float32]:
    channel = "mix" if recording.channel is None else recording.channel
    waveform: NDArray[np.float32] = waveform_of(
        recording.item, channel=channel, sample_rate=rate, name=printable(recording.path)
    )
    if not len(waveform):
        raise ValueError("holds no audio samples")
    return waveform
