"""The rows that a run has embedded, and the journal that says what they are.

Rows are written and synchronised before the line of the journal that names them, so every line has
its rows. A killed run may leave rows without a line, or half a line; both are dropped.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import printable
from .cutting import Resume
from .pieces import Result
from .sources import Recording
from .table import Done

Key = tuple[Any, ...]


@dataclasses.dataclass
class Run:
    """Consecutive rows of a clip: a line of the journal.

    Attributes:
        clip, number, start, samples: as in `Place`.
        rows: number of rows.
        first_row: index of the first one in `rows.bin`.
    """

    clip: int
    number: int
    start: int
    samples: int | None
    rows: int
    first_row: int


@dataclasses.dataclass
class Entry:
    """A recording of the journal; `done` is set when it is complete."""

    stamp: Any
    runs: list[Run] = dataclasses.field(default_factory=list)
    done: Done | None = None

    @property
    def resume(self) -> Resume:
        """The first piece that is not in the journal."""
        last = self.runs[-1]
        ended = last.samples is not None
        return Resume(last.clip + 1, 0) if ended else Resume(last.clip, last.number + 1)


class Journal:
    """`rows.bin` and `journal.jsonl` in a folder.

    Args:
        folder: the folder.
        width, dtype: size and type of an embedding.
        scenes: whether rows are scene embeddings. A scene embedding has one row, which is written
            with the last piece of its clip.

    Attributes:
        entries: the recordings that are on the disk, by `Recording.key`.
        pending_bytes: size of the rows that are not written yet.
    """

    def __init__(self, folder: Path, width: int, dtype: np.dtype[Any], scenes: bool) -> None:
        self.entries: dict[Key, Entry] = {}
        self.pending_bytes = 0
        self._rows, self._lines = folder / "rows.bin", folder / "journal.jsonl"
        self._dtype, self._row_bytes, self._scenes = dtype, width * dtype.itemsize, scenes
        self._pending: list[tuple[dict[str, Any], NDArray[Any]]] = []
        self._next_row = self._line_bytes = 0  # what the files hold for certain

    def create(self) -> None:
        """Make the files."""
        self._rows.touch()
        self._lines.touch()

    def replay(self) -> None:
        """Read the journal up to the first line that is incomplete or lacks its rows.

        Raises:
            OSError, ValueError, LookupError, TypeError: the journal is damaged.
        """
        rows = self._rows.stat().st_size // self._row_bytes
        with self._lines.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                entry = json.loads(line)
                if self._next_row + entry["rows"] > rows:
                    break
                self._take(entry)
                self._line_bytes += len(line)

    def add(self, result: Result, stamp: Any) -> None:
        """Keep the rows of a piece for the next `write`."""
        recording, place = result.recording, result.place
        line: dict[str, Any] = {
            "key": recording.key,
            "stamp": stamp,
            "run": [place.clip, place.number, place.start, place.samples],
            "rows": len(result.rows),
        }
        if place.last:
            line["done"] = [printable(recording.path), recording.name, dict(recording.columns)]
        self._pending.append((line, result.rows))
        self.pending_bytes += result.rows.nbytes

    def drop(self, recording: Recording) -> None:
        """Forget a recording with the next `write`."""
        self._pending.append(({"key": recording.key, "rows": 0}, np.zeros((0, 1))))

    def write(self) -> None:
        """Write the pending rows and lines; after an OSError, `write` can be called again."""
        lines = "".join(json.dumps(line) + "\n" for line, _ in self._pending).encode()
        rows = (np.ascontiguousarray(rows, self._dtype).data for _, rows in self._pending)
        _append(self._rows, self._next_row * self._row_bytes, rows)
        _append(self._lines, self._line_bytes, [lines])
        self._line_bytes += len(lines)
        for line, _ in self._pending:
            self._take(json.loads(json.dumps(line)))
        self._pending, self.pending_bytes = [], 0

    def _take(self, line: dict[str, Any]) -> None:
        key = tuple(line["key"])
        if "run" not in line:
            self.entries.pop(key, None)
            return
        clip, number, start, samples = line["run"]
        run = Run(clip, number, start, samples, line["rows"], self._next_row)
        self._next_row += run.rows
        entry = self.entries.get(key)
        if entry is None or entry.stamp != line["stamp"] or not self._follows(entry, run):
            entry = self.entries[key] = Entry(line["stamp"])
        entry.runs.append(run)
        if "done" in line:
            path, name, columns = line["done"]
            entry.done = Done(list(key), path, name, line["stamp"], columns)

    def _follows(self, entry: Entry, run: Run) -> bool:
        """Whether a run continues an incomplete recording where its last run ended."""
        if entry.done is not None or not entry.runs:
            return entry.done is None
        expected = entry.resume
        return run.clip == expected.clip and (self._scenes or run.number == expected.number)


def _append(path: Path, end: int, parts: Iterable[Any]) -> None:
    """Write from a position on. Bytes behind it are left from a write that failed."""
    with path.open("r+b") as file:
        file.seek(end)
        file.truncate()
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
