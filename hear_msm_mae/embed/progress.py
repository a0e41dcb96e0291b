"""Progress bar: files, hours of audio, times real time, time to go."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import soundfile
from tqdm import tqdm

from .inputs import Task
from .pipeline import Batch
from .remote import is_remote

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {postfix}[{elapsed} < {remaining}]"


class Progress:
    """A bar on the standard error stream, if that is a terminal.

    Its length is the size of the files in bytes, as to open them all would take long; if there
    are stretches, their seconds.

    Args:
        tasks: what is to be done.
        done: files that were done by earlier runs.
        resumed_at: how far the first task is, in seconds of its file.

    Attributes:
        seconds: audio read so far.
    """

    def __init__(self, tasks: Sequence[Task], done: int = 0, resumed_at: float = 0.0) -> None:
        self.seconds = 0.0
        self._tasks, self._files, self._total = tasks, done, done + len(tasks)
        stretches = any(task.end is not None for task in tasks)
        self._weights = [_weight(task, stretches) for task in tasks]
        self._finished = 0.0  # weight of what is complete
        self._open: dict[int, float] = {0: resumed_at} if resumed_at else {}  # position by task
        self._begin = time.monotonic()
        self._bar = tqdm(total=sum(self._weights), desc="embed", bar_format=_FORMAT, disable=None)
        self._show(0.0)

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.seconds / max(1e-9, time.monotonic() - self._begin)

    def update(self, batch: Batch) -> None:
        """Count in a batch."""
        goes_on = batch.chunks[-1].task if batch.resume is not None else None
        share = 0.0
        for index, position in batch.positions.items():
            begin = self._open.pop(index, self._tasks[index].start)
            self.seconds += max(0.0, position - begin)
            if index == goes_on:
                self._open[index] = position
                share = self._weights[index] * _fraction(self._tasks[index], position)
            else:
                self._finish(index)
        for index, _ in batch.failures:
            self._open.pop(index, None)
            self._finish(index)
        self._show(share)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _finish(self, index: int) -> None:
        self._files += 1
        self._finished += self._weights[index]

    def _show(self, share: float) -> None:
        self._bar.set_postfix_str(
            f"{self._files}/{self._total} files, {self.seconds / 3600:.2f} h, "
            f"{self.speed:.0f} x real time ",
            refresh=False,
        )
        self._bar.update(self._finished + share - self._bar.n)


def _weight(task: Task, stretches: bool) -> float:
    if stretches:
        return 60.0 if task.end is None else task.end - task.start
    try:
        return float(os.path.getsize(task.path)) if not is_remote(task.path) else 1.0
    except OSError:
        return 0.0


def _fraction(task: Task, position: float) -> float:
    """How much of an open task is done; by the file's own, perhaps wrong, word on its length."""
    end = task.end
    if end is None:
        try:
            end = soundfile.info(os.fsencode(task.path)).duration
        except (soundfile.SoundFileError, OSError):
            return 0.0
    return min(1.0, (position - task.start) / max(1e-9, end - task.start))
