"""Threads that decode, resample and transform recordings ahead of the encoder.

Threads, not processes: libsndfile, soxr and torch release the interpreter lock while they work,
and units reach the encoder without being copied.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from ..files import printable
from .cut import Group, Plan, cut
from .inputs import Failure, Task

QUEUED_GROUPS = 16  # per recording: bounds the memory of a long one
TASKS_AHEAD = 64  # recordings that may be waiting: most are short
_POLL_SECONDS = 0.2

_Item = Group | Failure | Exception


class Readers:
    """Cut tasks in threads; iterate over what comes out, in the order of the tasks.

    Args:
        tasks: what to read.
        plan: how to cut it.
        workers: number of threads.
        first_clip, first_group: where the first task goes on.

    Yields:
        (index of the task, group or failure). A failure ends its task; groups of it may have come
        before.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        plan: Plan,
        workers: int,
        first_clip: int = 0,
        first_group: int = 0,
    ) -> None:
        self._tasks, self._plan = tasks, plan
        self._resume = first_clip, first_group
        self._stop = threading.Event()
        # (index, queue) of tasks for the threads; a None ends a thread.
        self._jobs: queue.SimpleQueue[tuple[int, queue.Queue[_Item]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"reader-{i}", daemon=True)
            for i in range(min(workers, len(tasks)))
        ]

    def __iter__(self) -> Iterator[tuple[int, Group | Failure]]:
        threads = torch.get_num_threads()
        indices = iter(range(len(self._tasks)))
        waiting: deque[tuple[int, queue.Queue[_Item]]] = deque()
        try:
            for thread in self._threads:
                thread.start()
            while True:
                for index in itertools.islice(indices, TASKS_AHEAD - len(waiting)):
                    waiting.append((index, queue.Queue(QUEUED_GROUPS)))
                    self._jobs.put(waiting[-1])
                if not waiting:
                    return
                index, items = waiting[0]
                item = items.get()
                if isinstance(item, Exception):
                    raise item
                yield index, item
                if isinstance(item, Failure) or item.last:
                    waiting.popleft()
        finally:
            self._stop.set()
            for _ in self._threads:
                self._jobs.put(None)
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
            torch.set_num_threads(threads)  # a reader's setting is the default of new threads

    def _work(self) -> None:
        torch.set_num_threads(1)  # for this thread: the cores belong to the encoder
        while (job := self._jobs.get()) is not None and not self._stop.is_set():
            index, items = job
            for item in self._read(index):
                if not self._put(items, item):
                    return

    def _read(self, index: int) -> Iterator[_Item]:
        task = self._tasks[index]
        first = self._resume if index == 0 else (0, 0)
        try:
            yield from cut(task, self._plan, *first)
        except (OSError, ValueError) as error:
            reason = str(error).removeprefix(f"{printable(task.path)}: ")
            yield Failure(task.path, task.start, task.end, reason)
        except Exception as error:  # to be raised where the result is waited for
            yield error

    def _put(self, items: queue.Queue[_Item], item: _Item) -> bool:
        """Wait for a free place; False when the work has been stopped."""
        while not self._stop.is_set():
            try:
                items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
