"""Worker processes that do not outlive their parent and whose death costs one item."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Items given out ahead of the one that is waited for, per worker. Enough to keep the others busy
# while one of them works on a file that is a hundred times longer.
_AHEAD = 64


def ordered_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Generator[tuple[_Item, _Result | None], None, None]:
    """Apply a function to items in worker processes; results come in the order of the items.

    Close the iterator (`contextlib.closing`) to stop the workers at once. They also stop, within
    a moment, when this process is killed, and they do not see Ctrl-C.

    Args:
        function: picklable, like its items and results.
        workers: number of processes; 0 computes in this process.

    Yields:
        (item, result); the result is None when the worker process died on the item (a crash in
        native code, or killed for want of memory).

    Raises:
        RuntimeError: worker processes cannot be started.
        Exception: what the function raised.
    """
    if workers == 0:
        for item in items:
            yield item, function(item)
        return
    rest = iter(items)
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    pool = _Pool(workers)
    try:
        while True:
            try:
                for item in itertools.islice(rest, _AHEAD * workers - len(waiting)):
                    waiting.append((item, pool.submit(function, item)))
                if not waiting:
                    return
                result = waiting[0][1].result()
            except BrokenProcessPool:
                pool.stop()
                for item, future in waiting:
                    yield item, _alone(function, item, future)
                waiting.clear()
                pool = _Pool(workers)
            else:
                yield waiting.popleft()[0], result
    finally:
        pool.stop()


def _alone(
    function: Callable[[_Item], _Result], item: _Item, future: Future[_Result]
) -> _Result | None:
    """The result for an item that was in the hands of a pool that broke."""
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    pool = _Pool(1)
    try:
        return pool.submit(function, item).result()
    except BrokenProcessPool:
        return None
    finally:
        pool.stop()


class _Pool:
    """A ProcessPoolExecutor of spawned workers that can be stopped in the middle of their work."""

    def __init__(self, workers: int) -> None:
        context = get_context("spawn")
        # The workers hold the reading end and stop when the writing end is gone.
        self._reader, self._writer = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(workers, context, _start_worker, (self._reader,))
        try:
            self.submit(abs, 0).result()
        except BrokenProcessPool as error:
            self.stop()
            raise RuntimeError(
                "worker processes cannot be started; in a script, call from below "
                'if __name__ == "__main__", or work in this process with workers=0'
            ) from error

    def submit(self, function: Callable[[_Item], _Result], item: _Item) -> Future[_Result]:
        """Like Executor.submit, but a broken pool is always found in the result."""
        try:
            with _interrupts_blocked():  # submitting may start a process
                return self._executor.submit(_run, function, item)
        except BrokenProcessPool as error:
            future: Future[_Result] = Future()
            future.set_exception(error)
            return future

    def stop(self) -> None:
        """End the workers now, also those in the middle of an item."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._writer.close()
        self._executor.shutdown(wait=True)
        self._reader.close()


class _Busy:
    """Whether this worker computes. It must not be ended while it sends a result."""

    lock = threading.Lock()
    now = False


def _run(function: Callable[[_Item], _Result], item: _Item) -> _Result:
    _Busy.now = True
    try:
        return function(item)
    finally:
        with _Busy.lock:
            _Busy.now = False


def _start_worker(parent: Connection) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: Connection) -> None:
    """Wait until the parent closes its end, or dies, and end this process."""
    try:
        parent.recv_bytes()
    except (EOFError, OSError):
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:  # an idle worker is ended by its executor
            with _Busy.lock:
                if _Busy.now:
                    os._exit(1)
            time.sleep(0.02)
        os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT: processes that are started here never see Ctrl-C, this one a bit later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
