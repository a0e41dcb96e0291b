"""What a run has done so far: the folder `OUT.partial`, from which the output is made.

    settings.json   how the rows are made
    rows.bin        embeddings, one behind the other
    journal.jsonl   one line for each stretch of rows: which recording, clip and piece they are of
    open.npz        the sums of a scene embedding that is not complete

Rows are written and synchronised before the line that names them, so the rows of every line are
there. A run that is killed loses the pieces in work; the next run begins behind the last line, in
the middle of a recording if need be. The output is made from these files, so it is always whole.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..files import printable, replacing
from ..pooling import Sums
from ..timeline import Timeline
from .pieces import Result, Resume
from .sources import Recording
from .table import Block, Clip, Done, Reader, Runs, Table

logger = logging.getLogger(__name__)

FORMAT = 2
# Results are written when so much has come together: little is lost, and files are synchronised
# seldom.
FLUSH_SECONDS = 1.0
FLUSH_BYTES = 2**26

Key = tuple[Any, ...]


@dataclasses.dataclass
class _Run:
    """Rows of a clip that lie side by side: a line of the journal."""

    clip: int
    number: int
    start: int
    samples: int | None
    rows: int
    first_row: int


@dataclasses.dataclass
class _Entry:
    """A recording of the journal; `done` is set when it is complete."""

    stamp: Any
    runs: list[_Run] = dataclasses.field(default_factory=list)
    done: Done | None = None

    @property
    def resume(self) -> Resume:
        """The piece behind the last one."""
        last = self.runs[-1]
        ended = last.samples is not None
        return Resume(last.clip + 1, 0) if ended else Resume(last.clip, last.number + 1)


class _Earlier(Exception):
    """The folder is not of this release."""


class Store:
    """The folder of a run, which no other process can use until `close`.

    Args:
        folder: `OUT.partial`.
        settings: compared with those of the run that left the folder.
        width: size of the embeddings.
        timeline: for the timestamps of the rows.
        fresh: throw away what is there.
        replaces: whether a run that begins here replaces the output, not adds to it.

    Attributes:
        new: no earlier run has left anything; replaces: as the run that began the folder said.

    Raises:
        ValueError: another process works on the same output, the folder is damaged or was left by
            another release.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        width: int,
        timeline: Timeline,
        fresh: bool = False,
        replaces: bool = False,
    ) -> None:
        self.folder, self.settings = folder, dict(settings)
        self.width, self.dtype = width, np.dtype(settings["dtype"])
        self._timeline = timeline
        # Pieces are stored by their numbers, which mean nothing if they are longer or shorter.
        self._form = {"format": FORMAT, "piece_units": timeline.piece_units}
        self._entries: dict[Key, _Entry] = {}
        self._pending: list[tuple[dict[str, Any], NDArray[Any]]] = []
        self._bytes, self._flushed = 0, time.monotonic()
        self._next_row = self._journal_bytes = 0  # what is written for good
        self._open: tuple[Key, Resume] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock", timeout=0)
        try:
            self._lock.acquire()
            if not (folder / "lock").exists():  # another process has removed it since
                self._lock.release()
                raise Timeout(str(folder))
        except Timeout:
            raise ValueError(
                f"another process is writing to {printable(folder)}; wait for it or stop it"
            ) from None
        self.new = fresh or not (folder / "settings.json").exists()
        try:
            self.replaces = self._begin(fresh, replaces)
        except BaseException:
            self._lock.release()
            raise

    @property
    def _row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def stored_settings(self) -> dict[str, Any]:
        """Settings of the run that began the folder."""
        return dict(json.loads((self.folder / "settings.json").read_text("utf-8"))["settings"])

    def _begin(self, fresh: bool, replaces: bool) -> bool:
        """Take over what is there; whether the run replaces an old output."""
        about = self.folder / "settings.json"
        if self.new and (fresh or not any(self.folder.glob("batch-*.npz"))):
            for file in self.folder.iterdir():
                if file.name != "lock" and file.is_file():
                    file.unlink()
            for name in ("rows.bin", "journal.jsonl"):
                (self.folder / name).touch()
            with replacing(about) as temporary:
                text = {**self._form, "replaces": replaces, "settings": self.settings}
                temporary.write_text(json.dumps(text), "utf-8")
            return replaces
        try:
            found = json.loads(about.read_text("utf-8")) if about.exists() else {}
            if {name: found.get(name) for name in self._form} != self._form:
                raise _Earlier
            self._replay()
            return bool(found["replaces"])
        except _Earlier:
            raise ValueError(
                f"{printable(self.folder)} was left by another release of hear_msm_mae, which "
                "alone can continue it; remove the folder or pass --overwrite to start again"
            ) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{printable(self.folder)} is damaged ({error}); remove it to start again"
            ) from error

    def _replay(self) -> None:
        """Read the journal up to what a killed run wrote of a line, or without its rows."""
        rows = (self.folder / "rows.bin").stat().st_size // self._row_bytes
        with (self.folder / "journal.jsonl").open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                entry = json.loads(line)
                if self._next_row + entry["rows"] > rows:
                    break
                self._take(entry)
                self._journal_bytes += len(line)
        try:
            with np.load(self.folder / "open.npz", allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                sums = Sums(torch.from_numpy(file["moments"]), about["weight"])
        except (OSError, ValueError, LookupError, zipfile.BadZipFile):
            return
        key = tuple(about["key"])
        known = self._entries.get(key)
        if known is None or known.stamp == about["stamp"]:
            known = known or self._entries.setdefault(key, _Entry(about["stamp"]))
            # Sums of another clip than the next one: a kill came between the two files.
            clip = known.resume.clip if known.runs else 0
            if not known.done and about["clip"] == clip:
                self._open = key, Resume(about["clip"], about["number"], sums)

    # -----------------------------------------------------------------------------------------
    # What is done
    # -----------------------------------------------------------------------------------------
    def is_done(self, key: Key, stamp: Any) -> bool:
        """Whether a recording is complete, and its file has not changed since."""
        entry = self._entries.get(key)
        return entry is not None and entry.done is not None and entry.stamp == stamp

    def resume(self, key: Key, stamp: Any) -> Resume | None:
        """Where a recording continues that was begun."""
        entry = self._entries.get(key)
        if entry is None or entry.done is not None or entry.stamp != stamp:
            return None
        if self._open is not None and self._open[0] == key:
            return self._open[1]
        return entry.resume if entry.runs else None

    def table(self) -> Table:
        """The complete recordings."""
        self.flush()
        done: list[Done] = []
        clips: list[Clip] = []
        places: list[tuple[Reader, int, int]] = []
        rows = self._reader()
        for entry in self._entries.values():
            if entry.done is None:
                continue
            offset = 0  # of the next row in its clip
            lengths = {run.clip: run.samples for run in entry.runs if run.samples is not None}
            for run in entry.runs:
                if self._timeline.hop_ms is None:
                    places.append((rows, run.first_row, run.rows))
                else:
                    timed = self._timed(rows, run, lengths[run.clip], offset)
                    places.append((timed, 0, run.rows))
                offset += run.rows
                if run.samples is not None:
                    start, end = run.start, run.start + run.samples
                    channel = entry.done.key[3] if isinstance(entry.done.key[3], int) else None
                    clip = Clip(
                        len(done),
                        start / self._timeline.config.sample_rate,
                        end / self._timeline.config.sample_rate,
                        offset,
                        channel,
                    )
                    clips.append(clip)
                    offset = 0
            done.append(entry.done)
        how = self.settings, self.width, self.dtype, self._timeline.hop_ms is not None
        return Table(done, clips, *how, rows_of=Runs(places))

    def _reader(self) -> Reader:
        path = self.folder / "rows.bin"

        def read(first: int, count: int) -> Block:
            with path.open("rb") as file:
                file.seek(first * self._row_bytes)
                rows = np.fromfile(file, self.dtype, count * self.width)
            return Block(rows.reshape(count, self.width), None)

        return read

    def _timed(self, rows: Reader, run: _Run, samples: int, offset: int) -> Reader:
        """Rows of one run, which begin at row `offset` of the clip, with times in the file."""

        def read(first: int, count: int) -> Block:
            times = (
                1000 * run.start / self._timeline.config.sample_rate
                + self._timeline.timestamps_ms(samples)
            )
            at = offset + first
            return Block(rows(run.first_row + first, count).rows, times[at : at + count])

        return read

    # -----------------------------------------------------------------------------------------
    # Writing
    # -----------------------------------------------------------------------------------------
    def add(self, result: Result, stamp: Any) -> None:
        """Take the results of a piece; they are written a moment later.

        Raises:
            OSError: they cannot be written; `flush` tries again.
        """
        recording, place = result.recording, result.place
        if len(result.rows):
            line: dict[str, Any] = {
                "key": recording.key,
                "stamp": stamp,
                "run": [place.clip, place.number, place.start, place.samples],
                "rows": len(result.rows),
            }
            if place.last:
                line["done"] = [printable(recording.path), recording.name, dict(recording.columns)]
            self._pending.append((line, result.rows))
            self._bytes += result.rows.nbytes
        self._open = None
        if result.sums is not None:
            resume = Resume(place.clip, place.number + 1, result.sums)
            self._open = recording.key, resume
            self._entries.setdefault(recording.key, _Entry(stamp)).stamp = stamp
        if self._bytes > FLUSH_BYTES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def drop(self, recording: Recording) -> None:
        """Forget a recording that could not be read to its end."""
        self._pending.append(({"key": recording.key, "rows": 0}, np.zeros((0, self.width))))
        if self._open is not None and self._open[0] == recording.key:
            self._open = None

    def flush(self) -> None:
        """Write what has come together."""
        lines = "".join(json.dumps(line) + "\n" for line, _ in self._pending).encode()
        rows = (np.ascontiguousarray(rows, self.dtype).data for _, rows in self._pending)
        self._append("rows.bin", self._next_row * self._row_bytes, rows)
        self._append("journal.jsonl", self._journal_bytes, [lines])
        self._journal_bytes += len(lines)
        for line, _ in self._pending:
            self._take(json.loads(json.dumps(line)))
        self._pending, self._bytes = [], 0
        if self._open is not None:
            self._save_open(*self._open)
        self._flushed = time.monotonic()

    def _append(self, name: str, end: int, parts: Iterable[Any]) -> None:
        """Write behind what is written for good: a full disk may have taken a part before."""
        with (self.folder / name).open("r+b") as file:
            file.seek(end)
            file.truncate()
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())

    def _save_open(self, key: Key, resume: Resume) -> None:
        assert resume.sums is not None
        about = {
            "key": key,
            "stamp": self._entries[key].stamp,
            "clip": resume.clip,
            "number": resume.number,
            "weight": resume.sums.weight,
        }
        with replacing(self.folder / "open.npz") as temporary, temporary.open("wb") as file:
            text = np.frombuffer(json.dumps(about).encode(), np.uint8)
            np.savez(file, about=text, moments=resume.sums.moments.cpu().numpy())

    def _take(self, line: dict[str, Any]) -> None:
        key = tuple(line["key"])
        if "run" not in line:
            self._entries.pop(key, None)
            return
        clip, number, start, samples = line["run"]
        run = _Run(clip, number, start, samples, line["rows"], self._next_row)
        self._next_row += run.rows
        entry = self._entries.get(key)
        if entry is None or entry.stamp != line["stamp"] or not self._follows(entry, run):
            entry = self._entries[key] = _Entry(line["stamp"])
        entry.runs.append(run)
        if "done" in line:
            path, name, columns = line["done"]
            entry.done = Done(list(key), path, name, line["stamp"], columns)

    def _follows(self, entry: _Entry, run: _Run) -> bool:
        """Whether a run continues behind the others; scenes name the last piece of each clip."""
        if entry.done is not None or not entry.runs:
            return entry.done is None
        expected = entry.resume
        return run.clip == expected.clip and (
            self._timeline.hop_ms is None or run.number == expected.number
        )

    def close(self, remove: bool = False) -> None:
        """Let others write; optionally remove the folder."""
        if remove:  # while no other process can begin in it
            # First what says that there is something to continue: this may be killed as well.
            (self.folder / "settings.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
