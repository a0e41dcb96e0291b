"""Write a corpus so that it is valid at any time.

Frames are appended to the array first. A clip is part of the corpus when `corpus.json`, which is
replaced atomically, names a manifest that lists it. The next run cuts off unlisted frames of a
killed run. Clips in a damaged shard are removed from the table; when `prepare` finds their files
again, it writes their frames to the same place.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..files import replacing
from .extract import Stretch, Task
from .index import (
    CORPUS_FILE,
    FORMAT,
    FORMAT_VERSION,
    FRAMES_FILE,
    SKIPPED_FILE,
    Clip,
    FrontEnd,
    damaged_shards,
    fingerprint,
    manifest_name,
    num_shards,
    read_manifest,
    read_summary,
    shard_digest,
    shards_of,
    statistics,
)

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
        folder: existing folder of the corpus.
        front_end: front-end settings.
        cutting: settings of silence and shortest clip, stored in `corpus.json`.
        roots: names and folders of the sources, also stored.

    Attributes:
        clips: of each file in the corpus.
        skipped: files that were left out.
        lost: clips of files that a damaged shard held.

    Raises:
        ValueError: the existing manifest is damaged.
    """

    def __init__(
        self, folder: Path, front_end: FrontEnd, cutting: dict[str, Any], roots: dict[str, str]
    ) -> None:
        self.folder = folder
        self.front_end = front_end
        self.n_mels = front_end.n_mels
        self.cutting = cutting
        self.roots = roots
        self.clips: dict[Key, list[Clip]] = {}
        self.lost: dict[Key, list[Clip]] = {}
        self.skipped = {(row.root, row.path): row for row in _read_skipped(folder)}
        self._frames = 0
        self._digests: list[str] = []
        if (folder / CORPUS_FILE).exists():
            self._read()
        self._by_hash = {clips[0].sha256: key for key, clips in self.clips.items()}
        for left in (*folder.glob(".*-*.csv"), *folder.glob(".*-*.json")):  # of a killed run
            left.unlink(missing_ok=True)
        path = folder / FRAMES_FILE
        # Without a buffer, no data of a failed write remain that would fail again on close.
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)

    def _read(self) -> None:
        summary = read_summary(self.folder)
        self._frames, self._digests = int(summary["frames"]), list(summary["shards"])
        damaged = set(damaged_shards(self.folder, self.n_mels, summary))
        for clip in read_manifest(self.folder, summary):
            self.clips.setdefault((clip.root, clip.path), []).append(clip)
        for key, clips in list(self.clips.items()):
            if any(damaged.intersection(shards_of(clip)) for clip in clips):
                self.lost[key] = self.clips.pop(key)
        for shard in damaged:
            self._digests[shard] = ""
        if damaged:
            logger.warning(
                "%s is damaged: %d files have to be decoded again",
                self.folder / FRAMES_FILE,
                len(self.lost),
            )

    def holder_of(self, sha256: str) -> Key | None:
        """The file in the corpus with this content."""
        return self._by_hash.get(sha256)

    def add(self, task: Task, sha256: str, spool: str, parts: Sequence[Stretch], tag: str) -> None:
        """Append the parts of a file; older clips of the same file are removed.

        Args:
            task: the file.
            sha256: hash of its content.
            spool: file with the float16 frames of the whole recording.
            parts: the parts to add.
            tag: licence.

        Raises:
            OSError: the disk is full. Nothing of the file is added.
        """
        key = (task.root, task.path)
        end = self._frames
        places = []
        for part in parts:
            places.append(end)
            end += part.stop - part.start
        lost = self.lost.get(key, [])
        stretches = [(part.start, part.stop - part.start) for part in parts]
        if sha256 in {c.sha256 for c in lost} and stretches == [(c.start, c.frames) for c in lost]:
            places, end, tag = [c.offset for c in lost], self._frames, lost[0].licence
        clips = []
        with Path(spool).open("rb") as source:
            for part, place in zip(parts, places, strict=True):
                length = part.stop - part.start
                row = (task.root, task.path, task.source, part.start, length, place)
                identity = (sha256, task.bytes, task.mtime_ns, tag)
                clips.append(Clip(*row, *identity, part.sum, part.sum_squares))
                self._file.seek(place * self._row_bytes)
                _copy(source, part.start * self._row_bytes, length * self._row_bytes, self._file)
                for shard in shards_of(clips[-1]):
                    self._digests += [""] * (shard + 1 - len(self._digests))
                    self._digests[shard] = ""
        self._forget(key)
        self._frames = end
        self.clips[key] = clips
        self._by_hash[sha256] = key

    def touch(self, task: Task) -> None:
        """Note the new modification time of a file whose content is the same."""
        key = (task.root, task.path)
        self.clips[key] = [
            c._replace(bytes=task.bytes, mtime_ns=task.mtime_ns) for c in self.clips[key]
        ]

    def skip(self, task: Task, reason: str, sha256: str) -> None:
        """Leave a file out; older clips of the same file are removed."""
        key = (task.root, task.path)
        self._forget(key)
        self.skipped[key] = Skipped(*key, reason, sha256, task.bytes, task.mtime_ns)

    def commit(self, complete: bool = False) -> None:
        """Make everything that was added part of the corpus.

        Raises:
            OSError: the disk is full. The corpus stays in the state of the last commit.
        """
        rows = sorted(self.rows())
        # Cuts off the frames of a file that did not fit on the disk; makes up for lost ones.
        self._file.truncate(self._frames * self._row_bytes)
        os.fsync(self._file.fileno())
        del self._digests[num_shards(self._frames) :]
        for shard, digest in enumerate(self._digests):
            if not digest:
                self._digests[shard] = shard_digest(self.folder, self.n_mels, shard, self._frames)
        manifest = _csv(Clip._fields, rows)
        name = manifest_name(manifest)
        if not (self.folder / name).exists():
            _replace(self.folder / name, manifest)
        _replace(self.folder / SKIPPED_FILE, _csv(Skipped._fields, self.skipped.values()))
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
            "fingerprint": fingerprint(rows, self.front_end),
            "front_end": self.front_end.settings(),
            "cutting": self.cutting,
            "roots": self.roots,
            "manifest": name,
            "frames": self._frames,
            "shards": self._digests,
        }
        _replace(self.folder / CORPUS_FILE, (json.dumps(summary, indent=1) + "\n").encode())
        for old in self.folder.glob("manifest-*.csv"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the array; uncommitted clips are lost."""
        self._file.close()

    def rows(self) -> Iterable[Clip]:
        """All clips."""
        return (clip for clips in self.clips.values() for clip in clips)

    def _forget(self, key: Key) -> None:
        self.skipped.pop(key, None)
        self.lost.pop(key, None)
        if clips := self.clips.pop(key, None):
            self._by_hash.pop(clips[0].sha256, None)

    @property
    def _row_bytes(self) -> int:
        return 2 * self.n_mels


def _copy(source: BinaryIO, start: int, size: int, target: io.FileIO) -> None:
    source.seek(start)
    while size:
        piece = memoryview(source.read(min(size, _COPY_BYTES)))
        if not piece:
            raise RuntimeError("the frames of a file are fewer than there were")
        size -= len(piece)
        while piece:
            piece = piece[target.write(piece) :]


def _csv(header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically, after the new content is synchronised to the disk."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_skipped(folder: Path) -> Iterable[Skipped]:
    """Rows of `skipped.csv`. If it is damaged, its files are only read again."""
    try:
        with (folder / SKIPPED_FILE).open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file, strict=True)
            next(rows, None)
            return [
                Skipped(root, path, reason, sha256, int(size), int(mtime_ns))
                for root, path, reason, sha256, size, mtime_ns in rows
            ]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, IndexError, csv.Error) as error:
        logger.warning("%s is damaged (%s) and is written anew", folder / SKIPPED_FILE, error)
        return []
