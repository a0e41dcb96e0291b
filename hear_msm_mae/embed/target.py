"""The output of a run: what is in it already, and how it comes up to date."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import SAMPLE_RATE
from ..files import printable
from ..model import HearModel
from .content import Content, samples
from .cut import Plan
from .inputs import Failure, Task
from .journal import Journal, key
from .outputs import Format, NpyFolder, check_names
from .pipeline import Batch, Resume
from .settings import require_same

# The output is brought up to date while the run goes on, but at most a twentieth of the time.
_UPDATE_SHARE = 20


class Target:
    """The output, and the journal of what is not in it yet."""

    def __init__(
        self, path: Path, format_: Format, plan: Plan, settings: dict[str, Any], model: HearModel
    ) -> None:
        self.path, self.format = path, format_
        self._plan, self._settings = plan, settings
        self._width = model.scene_embedding_size
        self._journal = Journal(path.with_name(f"{path.name}.partial"))
        self._finished = False
        self._replace = False  # an old output is to go
        self._again = "repeat the command"
        self._updated, self._cost = time.monotonic(), 0.0

    def open(self, tasks: list[Task], overwrite: bool) -> None:
        """Look at what is there.

        Raises:
            ValueError: it is of somebody else, has other settings, or no place for the tasks.
        """
        if overwrite:
            self._again = "repeat the command without --overwrite"
        else:
            if (left := self._journal.settings()) is not None:
                require_same(self._journal.folder, left, self._settings)
        replace = overwrite or self._journal.replaces
        self._replace = replace and self._exists()
        if self._replace and self.path.is_dir():
            self._read("holds other files")
        elif self._exists() and not self._replace:
            base = self._read("exists and cannot be continued")
            require_same(self.path, base.settings, self._settings)
            self._check_places(tasks, base)
        self._journal.open(self._settings, fresh=overwrite, replaces=self._replace)
        if isinstance(self.format, NpyFolder):
            check_names(tasks, self._journal.tasks())

    def _exists(self) -> bool:
        """Whether there is an output; an empty folder is none."""
        return self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir()))

    def _read(self, problem: str = "is damaged") -> Content:
        try:
            return self.format.read(self.path)
        except ValueError as error:
            # A folder that is not an output may hold anything: it is never cleared.
            way = "" if self.path.is_dir() else ", or pass --overwrite"
            raise ValueError(
                f"{printable(self.path)} {problem}: {error}; choose another output{way}"
            ) from error

    def _check_places(self, tasks: list[Task], base: Content) -> None:
        """A folder has one .npy file per recording, which is written in one go."""
        if not isinstance(self.format, NpyFolder):
            return
        check_names(tasks, base.clips)
        there = covered(tasks, base, self._settings)
        stretches: dict[str, list[tuple[float, float]]] = {}
        for task in tasks:
            if key(task) not in there:
                stretch = (task.start, math.inf if task.end is None else task.end)
                stretches.setdefault(printable(task.path), []).append(stretch)
        for clip in base.clips:
            within = stretches.get(clip.path)
            if within and not any(start <= clip.start < end for start, end in within):
                raise ValueError(
                    f"{printable(self.path)} holds other stretches of {clip.path}; choose another "
                    "output, or give all its stretches in one list with --overwrite"
                )

    def missing(self, tasks: list[Task]) -> tuple[list[Task], int]:
        """Tasks that are still to be done, the interrupted one first; number of those done."""
        journal = self._journal
        base = None
        if self._exists() and not self._replace:
            base = self._read()
        there = covered(tasks, base, self._settings)
        rest = [
            task
            for task in tasks
            if key(task) not in journal.done
            and key(task) not in journal.failed
            and key(task) not in there
        ]
        if journal.resume is not None:
            first = key(journal.resume[0])
            rest.sort(key=lambda task: key(task) != first)
        failed = sum(key(task) in journal.failed for task in tasks)
        return rest, len(tasks) - len(rest) - failed

    def resume(self, rest: list[Task]) -> Resume | None:
        """Where the first of the missing tasks goes on."""
        resume = self._journal.resume
        if resume is None or not rest or key(rest[0]) != key(resume[0]):
            return None
        return resume[1]

    def append(self, tasks: list[Task], batch: Batch) -> None:
        """Store a batch; now and then bring the output up to date."""
        with self._explained():
            self._journal.append(tasks, batch)
            if self._replace and batch.chunks:
                self._discard()
            if time.monotonic() - self._updated > _UPDATE_SHARE * self._cost:
                self._write()

    def _discard(self) -> None:
        if isinstance(self.format, NpyFolder):
            self.format.clear(self.path, self._settings, self._width)
        else:
            self.path.unlink()
        self._replace = False
        self._journal.replaced()

    def _write(self) -> None:
        begin = time.monotonic()
        content = self._journal.content(self._plan, self._settings, self._width)
        if content.clips:
            if self._exists():
                content = self._read().updated(content, isinstance(self.format, NpyFolder))
            self.format.write(self.path, content)
        self._updated = time.monotonic()
        self._cost = self._updated - begin

    def finish(self, tasks: list[Task]) -> list[Failure]:
        """Complete the output; what could not be read goes to a file of its own."""
        failures = [
            self._journal.failed[key(task)] for task in tasks if key(task) in self._journal.failed
        ]
        with self._explained():
            self._write()
        self._finished = True
        return failures

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say where everything is when something cannot be written."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"{printable(self.path)} cannot be written: {error.strerror or error}; what was "
                f"computed so far is kept in {printable(self._journal.folder)}, make room and "
                f"{self._again}"
            ) from error

    def close(self) -> None:
        """Let others write."""
        self._journal.close(remove=self._finished)


def covered(tasks: list[Task], base: Content | None, settings: dict[str, Any]) -> set[Any]:
    """Tasks that a finished output holds already."""
    if base is None:
        return set()
    clips: dict[str, set[tuple[int, int]]] = {}
    for clip in base.clips:
        clips.setdefault(clip.path, set()).add(samples(clip))
    if not settings["stretches"] and not base.settings["stretches"]:
        return {key(task) for task in tasks if printable(task.path) in clips}
    ends = {clip.path: samples(clip)[1] for clip in base.clips if clip.file_end}
    # All of a file's clips are embedded again, when one of them is missing: they replace the old
    # ones together.
    complete = {task.path: True for task in tasks}
    for task in tasks:
        name = printable(task.path)
        known = [] if task.end is None else [round(task.end * SAMPLE_RATE)]
        known += [ends[name]] if name in ends else []
        complete[task.path] &= bool(known) and (
            _expected(round(task.start * SAMPLE_RATE), min(known), settings)
            <= clips.get(name, set())
        )
    return {key(task) for task in tasks if complete[task.path]}


def _expected(first: int, last: int, settings: dict[str, Any]) -> set[tuple[int, int]]:
    """First and last sample of the clips of a task that is read from `first` to `last`."""
    if settings["segment"] is None:
        return {(first, last)}
    length = round(settings["segment"] * SAMPLE_RATE)
    step = round((settings["segment"] - settings["overlap"]) * SAMPLE_RATE)
    clips = {(first, min(first + length, last))}
    while first + length < last:
        first += step
        clips.add((first, min(first + length, last)))
    return clips
