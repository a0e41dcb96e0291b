"""The results of a run so far: the folder `OUT.partial`, from which the output is written.

    settings.json   the settings of the run
    rows.bin        embeddings, one after the other
    journal.jsonl   a line for consecutive rows: their recording, clip and piece
    open.npz        sums of the scene embedding whose clip is incomplete

A killed run loses only the pieces that were not written yet. The next run continues after the last
line of the journal, also in the middle of a recording.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..files import printable, replacing
from ..pooling import Sums
from ..timeline import Timeline
from .cutting import Resume
from .journal import Entry, Journal, Key, Run
from .pieces import Result
from .sources import Recording
from .table import Block, Clip, Done, Reader, Runs, Table

FORMAT = 2
# Results are written after this time or size: a killed run loses little, and the disk has to
# synchronise rarely.
FLUSH_SECONDS = 1.0
FLUSH_BYTES = 2**26


class _Earlier(Exception):
    """Another release of this package wrote the folder."""


class Store:
    """The folder of a run. It is locked against other processes until `close`.

    Args:
        folder: `OUT.partial`.
        settings: the settings of the run, in types of JSON.
        width: size of an embedding.
        timeline: gives the timestamps of the rows.
        fresh: delete the results of an earlier run.
        replaces: whether the run, if it is new, replaces the output instead of extending it.

    Attributes:
        new: whether there were no results of an earlier run.
        replaces: the argument `replaces` of the run that made the folder.

    Raises:
        ValueError: another process uses the folder, the folder is damaged, or another release
            wrote it.
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
        # Pieces are stored by their numbers, which are only valid for pieces of the same length.
        self._form = {"format": FORMAT, "piece_units": timeline.piece_units}
        self._journal = Journal(folder, width, self.dtype, scenes=timeline.hop_ms is None)
        self._flushed = time.monotonic()
        self._open: tuple[Key, Resume] | None = None  # the clip whose sums are incomplete
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock", timeout=0)
        try:
            self._lock.acquire()
            if not (folder / "lock").exists():  # another process has removed the folder
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

    def stored_settings(self) -> dict[str, Any]:
        """The settings of the run that made the folder."""
        return dict(json.loads((self.folder / "settings.json").read_text("utf-8"))["settings"])

    def _begin(self, fresh: bool, replaces: bool) -> bool:
        """Make the files or read those of an earlier run; returns `replaces` of the run."""
        about = self.folder / "settings.json"
        if self.new and (fresh or not any(self.folder.glob("batch-*.npz"))):
            for file in self.folder.iterdir():
                if file.name != "lock" and file.is_file():
                    file.unlink()
            self._journal.create()
            with replacing(about) as temporary:
                text = {**self._form, "replaces": replaces, "settings": self.settings}
                temporary.write_text(json.dumps(text), "utf-8")
            return replaces
        try:
            found = json.loads(about.read_text("utf-8")) if about.exists() else {}
            if {name: found.get(name) for name in self._form} != self._form:
                raise _Earlier
            self._journal.replay()
            self._read_open()
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

    def _read_open(self) -> None:
        """Read the sums of the incomplete clip, if they fit the journal."""
        try:
            with np.load(self.folder / "open.npz", allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                sums = Sums(torch.from_numpy(file["moments"]), about["weight"])
        except (OSError, ValueError, LookupError, zipfile.BadZipFile):
            return
        key = tuple(about["key"])
        known = self._entries.get(key)
        if known is None or known.stamp == about["stamp"]:
            known = known or self._entries.setdefault(key, Entry(about["stamp"]))
            # The clip is another one if the run was killed before it wrote this file.
            clip = known.resume.clip if known.runs else 0
            if not known.done and about["clip"] == clip:
                self._open = key, Resume(about["clip"], about["number"], sums)

    @property
    def _entries(self) -> dict[Key, Entry]:
        return self._journal.entries

    # -----------------------------------------------------------------------------------------
    # Reading
    # -----------------------------------------------------------------------------------------
    def is_done(self, key: Key, stamp: Any) -> bool:
        """Whether a recording is complete and its file unchanged."""
        entry = self._entries.get(key)
        return entry is not None and entry.done is not None and entry.stamp == stamp

    def resume(self, key: Key, stamp: Any) -> Resume | None:
        """The first missing piece of an incomplete recording; None for all others."""
        entry = self._entries.get(key)
        if entry is None or entry.done is not None or entry.stamp != stamp:
            return None
        if self._open is not None and self._open[0] == key:
            return self._open[1]
        return entry.resume if entry.runs else None

    def table(self) -> Table:
        """The complete recordings with their rows."""
        self.flush()
        done: list[Done] = []
        clips: list[Clip] = []
        places: list[tuple[Reader, int, int]] = []
        rows = self._reader()
        rate = self._timeline.config.sample_rate
        for entry in self._entries.values():
            if entry.done is None:
                continue
            offset = 0  # index of the next row in its clip
            lengths = {run.clip: run.samples for run in entry.runs if run.samples is not None}
            for run in entry.runs:
                if self._timeline.hop_ms is None:
                    places.append((rows, run.first_row, run.rows))
                else:
                    timed = self._timed(rows, run, lengths[run.clip], offset)
                    places.append((timed, 0, run.rows))
                offset += run.rows
                if run.samples is not None:
                    start, end = run.start / rate, (run.start + run.samples) / rate
                    channel = entry.done.key[3] if isinstance(entry.done.key[3], int) else None
                    clips.append(Clip(len(done), start, end, offset, channel))
                    offset = 0
            done.append(entry.done)
        how = self.settings, self.width, self.dtype, self._timeline.hop_ms is not None
        return Table(done, clips, *how, rows_of=Runs(places))

    def _reader(self) -> Reader:
        path = self.folder / "rows.bin"

        def read(first: int, count: int) -> Block:
            with path.open("rb") as file:
                file.seek(first * self.width * self.dtype.itemsize)
                rows = np.fromfile(file, self.dtype, count * self.width)
            return Block(rows.reshape(count, self.width), None)

        return read

    def _timed(self, rows: Reader, run: Run, samples: int, offset: int) -> Reader:
        """A reader of the rows of a run with their times; row `offset` of the clip is the first."""

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
        """Take the results of a piece; they are written within a second or so.

        Raises:
            OSError: they cannot be written; `flush` tries again.
        """
        recording, place = result.recording, result.place
        if len(result.rows):
            self._journal.add(result, stamp)
        self._open = None
        if result.sums is not None:
            resume = Resume(place.clip, place.number + 1, result.sums)
            self._open = recording.key, resume
            self._entries.setdefault(recording.key, Entry(stamp)).stamp = stamp
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        if late or self._journal.pending_bytes > FLUSH_BYTES:
            self.flush()

    def drop(self, recording: Recording) -> None:
        """Forget a recording that could not be read to its end."""
        self._journal.drop(recording)
        if self._open is not None and self._open[0] == recording.key:
            self._open = None

    def flush(self) -> None:
        """Write the results that are not on the disk yet."""
        self._journal.write()
        if self._open is not None:
            self._save_open(*self._open)
        self._flushed = time.monotonic()

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

    def close(self, remove: bool = False) -> None:
        """Unlock the folder; optionally remove it."""
        if remove:  # before the lock is released
            # The settings go first: without them a folder that is half removed counts as new.
            (self.folder / "settings.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
