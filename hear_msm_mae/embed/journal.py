"""Batches of a run that is not finished, in a folder beside the output.

A Parquet, HDF5 or NPZ file that is being written is unreadable until it is closed, so each batch
becomes a small file of its own, complete from the moment it has its name. A run that is killed
loses the batch it was computing; the next run goes on behind the last one here, in the middle of
a recording if need be. The output is made from these files, so it is always whole.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..files import printable, replacing
from .content import Block, Clip, Content
from .cut import Plan
from .inputs import Failure, Task
from .pipeline import Batch, Resume
from .records import times_in_file

logger = logging.getLogger(__name__)

Key = tuple[str, float, float | None]  # path, start and end of a task


class _Entry(NamedTuple):
    """A chunk (see pipeline.Chunk) in a batch file."""

    path: str
    name: str
    task_start: float
    task_end: float | None
    clip: int
    first: bool
    last: bool
    start: float
    end: float | None
    rows: int

    @property
    def key(self) -> Key:
        return self.path, self.task_start, self.task_end

    @property
    def file_end(self) -> bool:
        """Whether the recording ended before the task did."""
        if not self.last or self.end is None or self.task_end is None:
            return self.last
        return round(self.end * SAMPLE_RATE) < round(self.task_end * SAMPLE_RATE)


def key(task: Task) -> Key:
    """What tells tasks apart."""
    return task.path, task.start, task.end


class Journal:
    """The folder `OUT.partial`; made by `open`.

    Attributes:
        done: tasks that are complete.
        failed: tasks that could not be read.
        resume: the task that is partly done, and where it goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[Key] = set()
        self.failed: dict[Key, Failure] = {}
        self.resume: tuple[Task, Resume] | None = None
        self._entries: dict[int, list[_Entry]] = {}  # by batch
        self._next = 0
        self._lock = FileLock(folder / "lock", timeout=0)
        self._replaces = folder / "replaces"

    def settings(self) -> dict[str, Any] | None:
        """Those of the run that left the folder; None when there is none."""
        try:
            return dict(json.loads((self.folder / "settings.json").read_text()))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{printable(self.folder)} is damaged ({error}); remove it to start again"
            ) from error

    @property
    def replaces(self) -> bool:
        """Whether the output that is there is an old one that this run has yet to replace."""
        return self._replaces.exists()

    def replaced(self) -> None:
        """The old output is gone."""
        self._replaces.unlink(missing_ok=True)

    def open(self, settings: dict[str, Any], fresh: bool = False, replaces: bool = False) -> None:
        """Take what an earlier run has left, or begin.

        Args:
            settings: of this run.
            fresh: throw away what is there.
            replaces: see the property.

        Raises:
            ValueError: another process works on the same output.
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(
                f"another process is writing to {printable(self.folder)}; wait for it or stop it"
            ) from None
        if fresh:
            for file in self.folder.glob("batch-*.npz"):
                file.unlink()
        if replaces:
            self._replaces.touch()
        else:
            self.replaced()
        with replacing(self.folder / "settings.json") as temporary:
            temporary.write_text(json.dumps(settings))
        files = sorted(self.folder.glob("batch-*.npz"))
        for file in files:
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    header = json.loads(arrays["header"].tobytes())
                    total = arrays.get("total")
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                if file != files[-1]:
                    raise ValueError(
                        f"{printable(file)} is damaged; remove {printable(self.folder)} or pass "
                        "--overwrite to start again"
                    ) from None
                logger.warning("%s is damaged and left out", printable(file))
                file.unlink()
                continue
            self._take(header, total)

    def append(self, tasks: Sequence[Task], batch: Batch) -> None:
        """Store a batch.

        Raises:
            OSError: it cannot be written; nothing changes.
        """
        header: dict[str, Any] = {
            "number": self._next,
            "chunks": [
                (*_fields(tasks[c.task]), c.clip, c.first, c.last, c.start, c.end, len(c.rows))
                for c in batch.chunks
            ],
            "failures": [(*key(tasks[index]), failure) for index, failure in batch.failures],
            "resume": None,
        }
        arrays: dict[str, Any] = {}
        if batch.chunks:
            arrays["rows"] = np.concatenate([chunk.rows for chunk in batch.chunks])
        if batch.resume is not None:
            task = tasks[batch.chunks[-1].task]
            resume = batch.resume
            header["resume"] = (task, resume.clip, resume.group, resume.weight)
            if resume.total is not None:
                arrays["total"] = resume.total
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        with (
            replacing(self._file(self._next)) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, header=text, **arrays)
        self._take(header, arrays.get("total"))

    def tasks(self) -> Iterator[Task]:
        """What the batches are of; a task comes once for each of its parts."""
        for entries in self._entries.values():
            for entry in entries:
                yield Task(entry.path, entry.task_start, entry.task_end, entry.name)

    def _take(self, header: dict[str, Any], total: NDArray[np.float64] | None) -> None:
        number = header["number"]
        self._next = number + 1
        self._entries[number] = [_Entry(*values) for values in header["chunks"]]
        for entry in self._entries[number]:
            if entry.last and entry.end is not None:
                self.done.add(entry.key)
        for path, start, end, failure in header["failures"]:
            self.failed[path, start, end] = Failure(*failure)
        self.resume = None
        if header["resume"] is not None:
            task, clip, group, weight = header["resume"]
            self.resume = Task(*task), Resume(clip, group, total, weight)

    def content(self, plan: Plan, settings: dict[str, Any], width: int) -> Content:
        """Everything that is complete."""
        accepted = self._accepted()
        clips: list[Clip] = []
        rows = 0
        for entries in accepted.values():
            for entry in entries:
                rows += entry.rows
                if entry.end is not None:
                    path = printable(entry.path)
                    ends = entry.file_end
                    clips.append(Clip(path, entry.start, entry.end, rows, entry.name, ends))
                    rows = 0

        def blocks() -> Iterator[Block]:
            position = _Position(clips, plan)
            for number, chosen in accepted.items():
                with np.load(self._file(number), allow_pickle=False) as arrays:
                    stored = arrays["rows"]
                offset, wanted = 0, set(map(id, chosen))
                for entry in self._entries[number]:
                    if entry.rows and id(entry) in wanted:
                        part = stored[offset : offset + entry.rows]
                        yield Block(part, position.times(entry.rows))
                    offset += entry.rows

        return Content(clips, settings, width, np.dtype(settings["dtype"]), plan.timestamps, blocks)

    def _accepted(self) -> dict[int, list[_Entry]]:
        """Chunks of complete tasks by batch; the rest was begun and not finished, or failed."""
        good: set[int] = set()
        open_: dict[Key, list[_Entry]] = {}
        for entry in (entry for entries in self._entries.values() for entry in entries):
            if entry.first:
                open_[entry.key] = []
            open_.setdefault(entry.key, []).append(entry)
            if entry.last and entry.end is not None:
                good.update(map(id, open_.pop(entry.key)))
        accepted = {
            number: [entry for entry in entries if id(entry) in good]
            for number, entries in self._entries.items()
        }
        return {number: entries for number, entries in accepted.items() if entries}

    def _file(self, number: int) -> Path:
        return self.folder / f"batch-{number:08d}.npz"

    def close(self, remove: bool) -> None:
        """Let others write; optionally remove the folder."""
        self._lock.release()
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)


class _Position:
    """Walks through the rows of the clips and gives their timestamps."""

    def __init__(self, clips: list[Clip], plan: Plan) -> None:
        self._clips, self._plan = iter(clips), plan
        self._times = np.zeros(0)

    def times(self, rows: int) -> NDArray[np.float64] | None:
        """Timestamps in ms of the next rows, which are of one clip; None for scenes."""
        if not self._plan.timestamps:
            return None
        if not len(self._times):
            clip = next(self._clips)
            self._times = times_in_file(self._plan, clip.start, clip.end)
        now, self._times = self._times[:rows], self._times[rows:]
        return now


def _fields(task: Task) -> tuple[str, str, float, float | None]:
    return task.path, task.name, task.start, task.end
