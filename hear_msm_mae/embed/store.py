"""The results of a run so far: the folder `OUT.partial`, from which the output is written.

    settings.json   the settings of the run
    rows.bin        embeddings, one after the other
    journal.jsonl   a line for the rows of each piece: its recording and its place in it
    open.npz        the scene embedding so far of the clip that is not complete

Rows are written and synchronised before the line that names them, so every line has its rows. A
killed run may leave rows without a line, or half a line; both are dropped. It loses only the pieces
that were not written yet. The next run continues after the last line, also inside a recording.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..files import printable, replacing
from ..pooling import Sums, pooled
from ..timeline import Timeline
from .cutting import Resume
from .pieces import Result
from .settings import require_same
from .sources import Recording
from .table import Clip, Done, Reader, Table, chained

FORMAT = 3
# Results are written after this time or size: a killed run loses little, and the disk has to
# synchronise rarely.
FLUSH_SECONDS = 1.0
FLUSH_BYTES = 2**26
# Names in the folder, with those of temporary files, and of files that file systems add.
_OURS = re.compile(r"lock|(settings|open|rows|journal)[.]\w+|[.](settings|open|nfs|DS_).*")

Key = tuple[Any, ...]  # `Recording.key`


class Line(NamedTuple):
    """A line of the journal: the rows of a piece."""

    key: Key
    stamp: Any
    clip: int  # this and the following are those of `Place`
    number: int
    start: int
    samples: int | None
    rows: int  # number of rows
    done: tuple[str, str, dict[str, Any]] | None  # path, name, columns in the last line, else None
    first_row: int = 0  # index of the first row in `rows.bin`; not written


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
        ValueError: another process uses the folder, or it is damaged, of another release, has
            other settings, or holds other files.
        OSError: the folder cannot be written.
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
        self._timeline, self._scenes = timeline, timeline.hop_ms is None
        self._lines: dict[Key, list[Line]] = {}  # of each recording
        self._pending: list[tuple[list[Any], NDArray[Any]]] = []  # lines and their rows
        self._open: tuple[Key, Any, Resume] | None = None  # key, stamp and sums of the open clip
        self._row_bytes = width * self.dtype.itemsize
        self._next_row = self._journal_bytes = 0  # what the files hold for certain
        self._flushed = time.monotonic()
        try:
            for file in folder.iterdir() if folder.is_dir() else ():
                if not _OURS.fullmatch(file.name):  # it would be removed with the folder
                    raise ValueError(
                        f"{printable(folder)} holds a file that is not of this release, "
                        f"{printable(file.name)}; remove it or choose another output"
                    )
            self._lock = _locked(folder)
            try:
                self._begin(fresh, replaces)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            why = error.strerror or error
            raise OSError(f"{printable(folder)} cannot be written: {why}") from error

    def _begin(self, fresh: bool, replaces: bool) -> None:
        """Make the files, or read those of an earlier run."""
        about = self.folder / "settings.json"
        # Pieces are stored by their numbers, which are only valid for pieces of the same length.
        form = {"format": FORMAT, "piece_units": self._timeline.piece_units}
        self.new = fresh or not about.exists()
        if self.new:
            for file in self.folder.iterdir():
                if file.name != "lock":
                    file.unlink()
            (self.folder / "rows.bin").touch()
            (self.folder / "journal.jsonl").touch()
            self.replaces = replaces
            with replacing(about) as temporary:
                text = json.dumps({**form, "replaces": replaces, "settings": self.settings})
                temporary.write_text(text, "utf-8")
            return
        try:
            found = json.loads(about.read_text("utf-8"))
            if same := {name: found.get(name) for name in form} == form:
                made_with, self.replaces = dict(found["settings"]), bool(found["replaces"])
                self._replay()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{printable(self.folder)} is damaged ({error}); remove it to start again"
            ) from error
        if not same:
            raise ValueError(
                f"{printable(self.folder)} was left by another release of hear_msm_mae, which "
                "alone can continue it; remove the folder or pass --overwrite to start again"
            )
        require_same(self.folder, made_with, self.settings)

    def _replay(self) -> None:
        """Read the journal up to the first line that is incomplete or lacks its rows."""
        rows = (self.folder / "rows.bin").stat().st_size // self._row_bytes
        with (self.folder / "journal.jsonl").open("rb") as journal:
            for line in journal:
                if not line.endswith(b"\n") or not self._take(json.loads(line), rows):
                    break
                self._journal_bytes += len(line)
        try:
            with np.load(self.folder / "open.npz", allow_pickle=False) as file:
                about, row = json.loads(file["about"].tobytes()), torch.from_numpy(file["row"])
            key, stamp, clip, number, weight, powers = about
            self._open = tuple(key), stamp, Resume(clip, number, _sums_of(row, weight, powers))
        except (OSError, ValueError, LookupError, zipfile.BadZipFile):
            pass  # there is none, or a damaged one: the clip begins again

    def _take(self, values: list[Any], rows: float = math.inf) -> bool:
        """Add a line of the journal, unless it has rows beyond a number of them."""
        key = tuple(values[0])
        if len(values) == 1:  # forget the recording
            self._lines.pop(key, None)
            return True
        line = Line(key, *values[1:])._replace(first_row=self._next_row)
        if line.first_row + line.rows > rows:
            return False
        # A recording begins again if its file has changed or its last sums were lost. A scene
        # embedding has one row, which is in the line of its last piece.
        if line.clip == 0 and (line.number == 0 or self._scenes):
            self._lines[key] = []
        self._lines[key].append(line)
        self._next_row += line.rows
        return True

    def resume(self, recording: Recording) -> Resume | None:
        """The first missing piece of a recording that is incomplete; None for all others."""
        after = None
        lines = self._lines.get(recording.key)
        if lines and lines[-1].stamp == recording.stamp:
            last = lines[-1]
            if last.done is not None:
                return None
            ended = last.samples is not None
            after = Resume(last.clip + 1, 0) if ended else Resume(last.clip, last.number + 1)
        if self._open is not None and self._open[:2] == (recording.key, recording.stamp):
            sums = self._open[2]
            # They are of another clip if the run was killed before it wrote the file.
            return sums if sums.clip == (after.clip if after else 0) else after
        return after

    def table(self) -> Table:
        """The complete recordings with their rows."""
        self.flush()
        done: list[Done] = []
        clips: list[Clip] = []
        runs: list[tuple[Reader, int, int]] = []
        read = self._read  # one object, so that `chained` reads rows in the order of the file
        rate = self._timeline.config.sample_rate
        for lines in self._lines.values():
            key, stamp, *_ = lines[-1]
            if lines[-1].done is None:
                continue
            path, name, columns = lines[-1].done
            channel = key[3] if isinstance(key[3], int) else None
            rows = 0  # of the clip
            for line in lines:
                runs.append((read, line.first_row, line.rows))
                rows += line.rows
                if line.samples is not None:
                    start, end = line.start / rate, (line.start + line.samples) / rate
                    clip = Clip(len(done), start, end, rows, channel)
                    if not self._scenes:
                        times = self._timeline.timestamps_ms(line.samples)[:2]
                        clip.first_ms, clip.hop_ms = 1000 * start + times[0], times[-1] - times[0]
                    clips.append(clip)
                    rows = 0
            done.append(Done(list(key), path, name, stamp, columns))
        how = self.settings, self.width, self.dtype, not self._scenes
        return Table(done, clips, *how, read=chained(runs))

    def _read(self, first: int, count: int) -> NDArray[Any]:
        with (self.folder / "rows.bin").open("rb") as file:
            file.seek(first * self._row_bytes)
            rows = np.fromfile(file, self.dtype, count * self.width)
        return rows.reshape(count, self.width)

    def add(self, result: Result) -> None:
        """Take the results of a piece; they are written within a second or so.

        Raises:
            OSError: they cannot be written; `flush` tries again.
        """
        recording, place = result.recording, result.place
        key, stamp = recording.key, recording.stamp
        if len(result.rows):
            done = printable(recording.path), recording.name, dict(recording.columns)
            line = [key, stamp, *place[:4], len(result.rows), done if place.last else None]
            self._pending.append((line, np.ascontiguousarray(result.rows, self.dtype)))
        self._open = None
        if result.sums is not None:
            self._open = key, stamp, Resume(place.clip, place.number + 1, result.sums)
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        if late or sum(rows.nbytes for _, rows in self._pending) > FLUSH_BYTES:
            self.flush()

    def drop(self, recording: Recording) -> None:
        """Forget a recording that could not be read to its end."""
        self._pending.append(([recording.key], np.zeros((0, self.width), self.dtype)))
        if self._open is not None and self._open[0] == recording.key:
            self._open = None

    def flush(self) -> None:
        """Write the results that are not on the disk yet; after an OSError, call it again."""
        text = "".join(json.dumps(line) + "\n" for line, _ in self._pending)
        rows = (rows.data for _, rows in self._pending)
        append(self.folder / "rows.bin", self._next_row * self._row_bytes, rows)
        append(self.folder / "journal.jsonl", self._journal_bytes, [text.encode()])
        self._journal_bytes += len(text)
        for line in text.splitlines():
            self._take(json.loads(line))
        self._pending = []
        if self._open is not None:
            key, stamp, (clip, number, sums) = self._open
            assert sums is not None
            about = key, stamp, clip, number, sums.weight, len(sums.moments)
            header = np.frombuffer(json.dumps(about).encode(), np.uint8)
            with replacing(self.folder / "open.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, about=header, row=pooled(sums).cpu().numpy())
        self._flushed = time.monotonic()

    def close(self, remove: bool = False) -> None:
        """Unlock the folder; optionally remove it."""
        if remove:  # before the lock is released
            # The settings go first: without them a folder that is half removed counts as new.
            (self.folder / "settings.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def _locked(folder: Path) -> FileLock:
    """Make the folder and lock it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
        if (folder / "lock").exists():
            return lock
        lock.release()  # another process has removed the folder
    except Timeout:
        pass
    raise ValueError(f"another process is writing to {printable(folder)}; wait for it or stop it")


def append(path: Path, end: int, parts: Iterable[Any]) -> None:
    """Write from a position on. Bytes behind it are left from a write that failed."""
    with path.open("r+b") as file:
        file.seek(end)
        file.truncate()
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _sums_of(row: torch.Tensor, weight: float, powers: int) -> Sums:
    """Inverse of `pooled`. A row takes a quarter of the space of the sums."""
    mean, *std = row.double().chunk(powers)
    squares = [mean.square() + x.square() for x in std]
    return Sums(weight * torch.stack([mean, *squares]), weight)
