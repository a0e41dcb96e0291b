"""The output of a run: what is in it already, and how it comes up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..audio import printable
from ..config import SAMPLE_RATE
from ..embedder import HearModel
from .content import Clip, Content
from .cut import Plan
from .inputs import Failure, Task
from .journal import Journal, key
from .outputs import Format
from .pipeline import Batch, Resume
from .settings import differs

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
        self._updated, self._cost = time.monotonic(), 0.0

    def open(self, overwrite: bool) -> None:
        """Look at what is there."""
        self._replace = overwrite and self._exists()
        if not overwrite:
            self._check(self._journal.settings(), self._journal.folder)
            if self._exists():
                self._check(self._read().settings, self.path)
        self._journal.open(self._settings, fresh=overwrite)

    def _exists(self) -> bool:
        """Whether there is an output; an empty folder is none."""
        return self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir()))

    def _read(self) -> Content:
        try:
            return self.format.read(self.path)
        except ValueError as error:
            raise ValueError(
                f"{printable(self.path)} exists and cannot be continued: {error}; choose another "
                "output, or pass --overwrite"
            ) from error

    def _check(self, old: dict[str, Any] | None, where: Path) -> None:
        if old is None:
            return
        if difference := differs(old, self._settings):
            raise ValueError(
                f"{printable(where)} was made with another setting of {difference}; repeat the old "
                "one, choose another output, or pass --overwrite"
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
                _remove(self.path)
                self._replace = False
            if time.monotonic() - self._updated > _UPDATE_SHARE * self._cost:
                self._write()

    def _write(self) -> None:
        begin = time.monotonic()
        content = self._journal.content(self._plan, self._settings, self._width)
        if content.clips:
            if self._exists():
                content = self._read().updated(content)
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
                "repeat the command"
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
        clips.setdefault(clip.path, set()).add(_samples(clip))
    if not settings["stretches"] and not base.settings["stretches"]:
        return {key(task) for task in tasks if printable(task.path) in clips}
    ends = {clip.path: _samples(clip)[1] for clip in base.clips if clip.file_end}
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


def _samples(clip: Clip) -> tuple[int, int]:
    return round(clip.start * SAMPLE_RATE), round(clip.end * SAMPLE_RATE)


def _remove(path: Path) -> None:
    if path.is_dir():
        for file in [*path.rglob("*.npy"), path / "index.csv", path / "settings.json"]:
            file.unlink(missing_ok=True)
        for folder in sorted(path.rglob("*/"), reverse=True):  # inner ones first
            if not any(folder.iterdir()):
                folder.rmdir()
    else:
        path.unlink()
