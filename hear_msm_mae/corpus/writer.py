"""Writing a corpus so that it is valid whenever the writing stops.

Frames are appended to the shards first; a clip exists once the manifest, which is replaced as a
whole, lists it. What a killed run left behind the last listed frame is cut off by the next one.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..files import replacing
from .extract import Stretch, Task
from .manifest import (
    CORPUS_FILE,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    SKIPPED_FILE,
    Clip,
    check_shards,
    fingerprint,
    front_end_settings,
    read_manifest,
    shard_path,
    statistics,
)

SHARD_FRAMES = 2**21  # a shard is closed when it has as many: 5.8 h, 320 MiB at 80 mel bins

_HEADER_BYTES = 128  # of an .npy file whose header fits; NumPy leaves room for a growing length
_COPY_BYTES = 2**24  # copied at once

Key = tuple[str, str]  # root and path of a file

logger = logging.getLogger(__name__)


class Skipped(NamedTuple):
    """One row of `skipped.csv`."""

    root: str
    path: str
    reason: str
    sha256: str
    bytes: int
    mtime_ns: int


class CorpusWriter:
    """Appends clips to a new or an existing corpus.

    Args:
        folder: DEST, existing.
        n_mels: mel bins of the frames.
        cutting: settings that decide what is kept, recorded in `corpus.json`.
        roots: names and folders of the sources, recorded too.

    Raises:
        ValueError: the corpus that is there is damaged.
    """

    def __init__(
        self, folder: Path, n_mels: int, cutting: dict[str, Any], roots: dict[str, str]
    ) -> None:
        self.folder = folder
        self.n_mels = n_mels
        self.cutting = cutting
        self.roots = roots
        self.clips: dict[Key, list[Clip]] = {}
        self.skipped: dict[Key, Skipped] = {}
        if (folder / MANIFEST_FILE).exists():
            for clip in read_manifest(folder):
                self.clips.setdefault((clip.root, clip.path), []).append(clip)
            check_shards(folder, n_mels, self.rows())
        if (folder / SKIPPED_FILE).exists():
            self.skipped = {(row.root, row.path): row for row in _read_skipped(folder)}
        self._by_hash = {clips[0].sha256: key for key, clips in self.clips.items()}
        self._shard = max((clip.shard for clip in self.rows()), default=0)
        self._file: FileIO | None = None
        self._frames = max(
            (c.offset + c.frames for c in self.rows() if c.shard == self._shard), default=0
        )

    def holder_of(self, sha256: str) -> Key | None:
        """The file in the corpus that has this content."""
        return self._by_hash.get(sha256)

    def add(self, task: Task, sha256: str, spool: str, parts: Sequence[Stretch], tag: str) -> None:
        """Append the stretches of a file; what the corpus had under its name is dropped.

        Args:
            task: the file.
            sha256: of its content.
            spool: raw float16 frames of the whole file.
            parts: what to keep of it.
            tag: licence.

        Raises:
            OSError: the disk is full; nothing of the file is added then.
        """
        if self._frames >= SHARD_FRAMES:
            self._close_shard()
            self._shard, self._frames = self._shard + 1, 0
        shard = self._open_shard()
        clips = []
        frames = self._frames
        with open(spool, "rb") as source:
            for part in parts:
                length = part.stop - part.start
                _copy(source, part.start * self._row_bytes, length * self._row_bytes, shard)
                row = (task.root, task.path, task.source, part.start, length, self._shard, frames)
                identity = (sha256, task.bytes, task.mtime_ns, tag)
                clips.append(Clip(*row, *identity, part.sum, part.sum_squares))
                frames += length
        key = (task.root, task.path)
        self._forget(key)
        self._frames = frames
        self.clips[key] = clips
        self._by_hash[sha256] = key

    def touch(self, task: Task) -> None:
        """Note the new modification time of a file whose content is the same."""
        key = (task.root, task.path)
        self.clips[key] = [
            c._replace(bytes=task.bytes, mtime_ns=task.mtime_ns) for c in self.clips[key]
        ]

    def skip(self, task: Task, reason: str, sha256: str) -> None:
        """Leave a file out; what the corpus had under its name is dropped."""
        key = (task.root, task.path)
        self._forget(key)
        self.skipped[key] = Skipped(*key, reason, sha256, task.bytes, task.mtime_ns)

    def commit(self, complete: bool = False) -> None:
        """Make everything that was added part of the corpus.

        Raises:
            OSError: the disk is full; the corpus is as it was at the last commit then.
        """
        rows = list(self.rows())
        if self._file is not None:
            # Frames behind the last clip: those of a file that did not fit on the disk.
            self._file.truncate(_HEADER_BYTES + self._frames * self._row_bytes)
            os.fsync(self._file.fileno())
            self._write_header(self._file)
        _write_csv(self.folder / MANIFEST_FILE, Clip._fields, rows)
        _write_csv(self.folder / SKIPPED_FILE, Skipped._fields, self.skipped.values())
        mean, std, hours = statistics(rows, self.n_mels)
        summary = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "complete": complete,
            "mean": mean if rows else None,
            "std": std if rows else None,
            "hours": hours,
            "files": len(self.clips),
            "clips": len(rows),
            "fingerprint": fingerprint(rows, self.n_mels),
            "front_end": front_end_settings(self.n_mels),
            "cutting": self.cutting,
            "roots": self.roots,
        }
        with replacing(self.folder / CORPUS_FILE) as path:
            path.write_text(json.dumps(summary, indent=1) + "\n", "utf-8")

    def close(self) -> None:
        """Close the shard; what was not committed is lost."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def rows(self) -> Iterable[Clip]:
        """All clips, in the order of the manifest."""
        return (clip for clips in self.clips.values() for clip in clips)

    def _forget(self, key: Key) -> None:
        self.skipped.pop(key, None)
        if clips := self.clips.pop(key, None):
            self._by_hash.pop(clips[0].sha256, None)

    @property
    def _row_bytes(self) -> int:
        return 2 * self.n_mels

    def _open_shard(self) -> FileIO:
        """The shard's file, positioned behind its last clip."""
        if self._file is None:
            path = shard_path(self.folder, self._shard)
            # Unbuffered: after a failed write nothing is left that would fail again.
            self._file = path.open("r+b" if self._frames else "w+b", buffering=0)
            if not self._frames:
                self._write_header(self._file)
        self._file.seek(_HEADER_BYTES + self._frames * self._row_bytes)
        return self._file

    def _close_shard(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._write_header(self._file)
            self.close()

    def _write_header(self, file: FileIO) -> None:
        file.seek(0)
        description = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)),
            "fortran_order": False,
            "shape": (self._frames, self.n_mels),
        }
        np.lib.format.write_array_header_1_0(file, description)
        if file.tell() != _HEADER_BYTES:
            raise RuntimeError(f"NumPy wrote a header of {file.tell()} bytes")
        os.fsync(file.fileno())


def _copy(source: BinaryIO, start: int, size: int, target: FileIO) -> None:
    source.seek(start)
    while size:
        piece = memoryview(source.read(min(size, _COPY_BYTES)))
        if not piece:
            raise RuntimeError("the frames of a file are fewer than there were")
        size -= len(piece)
        while piece:
            piece = piece[target.write(piece) :]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Replace a CSV file at once; it is on the disk before it takes the place of the old one."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def _read_skipped(folder: Path) -> Iterable[Skipped]:
    """Rows of `skipped.csv`; a damaged report only means that its files are looked at again."""
    try:
        with (folder / SKIPPED_FILE).open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file, strict=True)
            next(rows, None)
            return [
                Skipped(root, path, reason, sha256, int(size), int(mtime_ns))
                for root, path, reason, sha256, size, mtime_ns in rows
            ]
    except (ValueError, TypeError, IndexError, csv.Error) as error:
        logger.warning("%s is damaged (%s) and begun anew", folder / SKIPPED_FILE, error)
        return []
