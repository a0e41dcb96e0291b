"""Embed recordings: threads cut them into pieces ahead of the model, which encodes many at once."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import available_cpus
from ..pooling import Sums
from ..timeline import Piece
from .cutting import FROM_START, Place, Plan, Resume, cut
from .sources import Failure, Recording

MAX_READERS = 16
QUEUED_PIECES = 2  # pieces of a recording that wait for the model; this bounds the memory
AHEAD = 8  # for each thread, recordings that are open or waiting
_POLL_SECONDS = 0.2


class Result(NamedTuple):
    """The embeddings of one piece.

    For scene embeddings, the last piece of a clip has one row. The others have none, but sums.
    """

    recording: Recording
    place: Place
    rows: NDArray[np.floating]  # (r, d)
    sums: Sums | None = None  # of the clip so far


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
        recordings, plan: the recordings; model and windows.
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

    def put(items: queue.Queue[Any], item: Any) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                items.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def work(recording: Recording, items: queue.Queue[Any], begin: Resume) -> None:
        try:
            for event in cut(recording, plan, begin):
                if not put(items, event):
                    return
        except (OSError, ValueError, TypeError, OverflowError) as error:
            put(items, (recording.failure(error), None))
        finally:
            put(items, None)

    waiting: deque[tuple[Recording, queue.Queue[Any], Future[None]]] = deque()
    begins = itertools.chain([resume or FROM_START], itertools.repeat(FROM_START))
    todo = zip(recordings, begins, strict=False)
    with ThreadPoolExecutor(workers, thread_name_prefix="reader") as pool:
        try:
            while True:
                for recording, begin in itertools.islice(todo, AHEAD * workers - len(waiting)):
                    items: queue.Queue[Any] = queue.Queue(QUEUED_PIECES)
                    future = pool.submit(work, recording, items, begin)
                    waiting.append((recording, items, future))
                if not waiting:
                    return
                recording, items, future = waiting[0]
                event = items.get()
                if event is not None:
                    yield recording, *event
                    continue
                waiting.popleft()
                future.result()  # raises the error of a bug
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
