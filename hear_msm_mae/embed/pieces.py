"""Embed recordings: threads cut them into pieces ahead of the model, which encodes many at once."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import available_cpus, printable
from ..pooling import Sums
from ..timeline import Piece
from .cutting import Place, Plan, Resume, cut
from .sources import Failure, Recording

MAX_READERS = 16
QUEUED_PIECES = 2  # pieces of a recording that wait for the model; this bounds the memory
AHEAD = 8  # for each thread, recordings that are open or waiting
_POLL_SECONDS = 0.2


class Result(NamedTuple):
    """The embeddings of one piece.

    Attributes:
        recording, place: the recording, and the place of the piece in it.
        rows: (r, d) embeddings. For scene embeddings, the last piece of a clip has one row, and
            the others have none.
        sums: sums of an incomplete scene embedding; None for the last piece of a clip.
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
    """Embed recordings in bounded memory. Threads read ahead while the model encodes.

    Args:
        recordings: the recordings.
        plan: model and windows.
        dtype: type of the rows, "float32" or "float16".
        workers: number of threads that read; by default one per processor, at most 16.
        resume: first piece of the first recording; None means all of it.

    Yields:
        The results of each recording, in the order of the recordings. A recording that cannot be
        read ends with (recording, `Failure`); results of its beginning may come before.

    Raises:
        ValueError: `workers` is below 1.
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
    """Cut recordings into pieces in threads, and yield the pieces in order.

    Threads suffice: libsndfile, PyAV and soxr release the interpreter lock while they work.
    Processes would have to copy the waveforms.
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
    """The pieces of a recording, and a failure at the end if it cannot be read."""
    try:
        yield from cut(recording, plan, begin)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).removeprefix(f"{printable(recording.path)}: ")
        yield Failure(recording.path, recording.start, recording.end, reason), None
    except Exception as error:  # a bug: `_read_ahead` raises it in the main thread
        yield error
