"""Worker processes that end with their parent. If one crashes, only its item is lost."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Items per worker that are given out in advance. So many keep the other workers busy while one
# works on a file that is a hundred times longer.
_AHEAD = 64


def ordered_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Generator[tuple[_Item, _Result | None], None, None]:
    """Apply a function to items in worker processes; results come in the order of the items.

    Close the iterator (`contextlib.closing`) to stop the workers. They also stop if this process is
    killed. They ignore Ctrl-C.

    Args:
        function: a picklable function with picklable items and results.
        items: the items.
        workers: number of processes; 0 computes in this process.

    Yields:
        (item, result). The result is None if the worker process died on the item, e.g. by a crash
        in native code or for lack of memory.

    Raises:
        RuntimeError: worker processes cannot be started.
        Exception: any error of the function.
    """
    if workers == 0:
        for item in items:
            yield item, function(item)
        return
    rest = iter(items)
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    pool = _start(workers)
    try:
        while True:
            for item in itertools.islice(rest, _AHEAD * workers - len(waiting)):
                waiting.append((item, _submit(pool, function, item)))
            if not waiting:
                return
            try:
                result = waiting[0][1].result()
            except BrokenProcessPool:
                _stop(pool)
                for item, future in waiting:
                    yield item, _alone(function, item, future)
                waiting.clear()
                pool = _start(workers)
            else:
                yield waiting.popleft()[0], result
    finally:
        _stop(pool)


def _alone(
    function: Callable[[_Item], _Result], item: _Item, future: Future[_Result]
) -> _Result | None:
    """The result of an item whose pool broke."""
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    pool = _start(1)
    try:
        return _submit(pool, function, item).result()
    except BrokenProcessPool:
        return None
    finally:
        _stop(pool)


def _start(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        _submit(pool, abs, 0).result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "worker processes cannot be started; in a script, call from below "
            'if __name__ == "__main__", or work in this process with workers=0'
        ) from error
    return pool


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[_Item], _Result], item: _Item
) -> Future[_Result]:
    """Like Executor.submit, but the error of a broken pool is in the result."""
    try:
        with _interrupts_blocked():  # submitting may start a process
            return pool.submit(function, item)
    except BrokenProcessPool as error:
        future: Future[_Result] = Future()
        future.set_exception(error)
        return future


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers at once."""
    processes = list((pool._processes or {}).values())  # Python 3.14 has kill_workers
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    pool.shutdown(wait=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT: processes that start in the block ignore it, this one gets it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
