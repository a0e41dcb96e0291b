"""Write a corpus so that it is valid at any time.

Frames are appended to the array first. A clip is part of the corpus when `corpus.json`, which is
replaced atomically, names a manifest that lists it. The next run cuts off unlisted frames of a
killed run, and removes clips in damaged shards from the table, so that their files are new again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ..files import printable, replacing
from . import index
from .extract import Extracted, Task
from .index import CORPUS_FILE, FRAMES_FILE, SKIPPED_FILE, Clip, Skipped

COMMIT_SECONDS = 5.0  # minimum time between two commits
COMMIT_SHARE = 0.02  # maximum share of the time for commits

Key = tuple[str, str]  # root and path of a file

logger = logging.getLogger(__name__)


class CorpusWriter:
    """Adds files to a new or an existing corpus; the end of the `with` block commits.

    Args:
        folder: existing folder of the corpus.
        front_end: front-end settings.
        cutting: settings of silence and shortest clip, stored in `corpus.json`.
        roots: names and folders of the sources, also stored.

    Attributes:
        clips: of each file in the corpus.
        skipped: files that were left out.
        lost: clips of files that a damaged shard held.
        added: number of files that this writer added.

    Raises:
        ValueError: the existing manifest is damaged.
    """

    def __init__(
        self,
        folder: Path,
        front_end: Mapping[str, float],
        cutting: Mapping[str, float],
        roots: Mapping[str, str],
    ) -> None:
        self.folder, self.front_end, self.cutting, self.roots = folder, front_end, cutting, roots
        self.n_mels = int(front_end["n_mels"])
        self.clips: dict[Key, list[Clip]] = {}
        self.lost: dict[Key, list[Clip]] = {}
        self.skipped = {(row.root, row.path): row for row in _read_skipped(folder / SKIPPED_FILE)}
        self.added = 0
        self._digests: list[str] = []  # of the first `_hashed` frames
        self._hashed = 0
        if (folder / CORPUS_FILE).exists():
            self._read()
        self._by_hash = {clips[0].sha256: key for key, clips in self.clips.items()}
        self._frames = max((clip.stop for clip in self.rows()), default=0)
        self._last_commit = self._commit_cost = 0.0
        for left in (*folder.glob(".*-*.csv"), *folder.glob(".*-*.json")):  # of a killed run
            left.unlink(missing_ok=True)
        path = folder / FRAMES_FILE
        # Without a buffer, no data of a failed write remain that would fail again on close.
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)

    def _read(self) -> None:
        summary = index.read_summary(self.folder)
        for clip in index.read_manifest(self.folder, summary):
            self.clips.setdefault((clip.root, clip.path), []).append(clip)
        damaged = index.damaged_ranges(self.folder, summary)
        if not damaged:
            self._digests, self._hashed = summary["shards"], int(summary["frames"])
            return
        for key, clips in list(self.clips.items()):
            if any(c.offset < bad.stop and c.stop > bad.start for c in clips for bad in damaged):
                self.lost[key] = self.clips.pop(key)
        path = self.folder / FRAMES_FILE
        logger.warning("%s is damaged: %d files have to be decoded again", path, len(self.lost))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, also after an error, and close; the corpus is complete without an error."""
        try:
            self.commit(complete=kind is None)
        except OSError as failure:
            if kind is None:
                raise
            logger.error("the last files are not in the corpus (%s)", failure)
        finally:
            self._file.close()

    def rows(self) -> Iterator[Clip]:
        """All clips."""
        return (clip for clips in self.clips.values() for clip in clips)

    def holds(self, sha256: str) -> bool:
        """Whether a file with this content is in the corpus."""
        return sha256 in self._by_hash

    def take(self, task: Task, result: Extracted, licence: str) -> None:
        """Add a file, or leave it out; older clips of the same file are removed.

        A file whose content is in the corpus already is left out as a duplicate, or its new
        modification time is noted if it is the same file.

        Raises:
            OSError: the disk is full. Nothing of the file is added.
        """
        key = (task.root, task.path)
        holder = self._by_hash.get(result.sha256)
        reason = printable(result.reason)
        clips: list[Clip] = []
        if not reason and holder == key:
            old = self.clips[key]
            clips = [c._replace(bytes=task.bytes, mtime_ns=task.mtime_ns) for c in old]
        elif not reason and holder:
            reason = f"duplicate: of {'/'.join(holder)}"
        elif not reason:
            lost = self.lost.get(key)
            clips = self._append(task, result, licence or (lost[0].licence if lost else ""))
            self.added += 1
        if before := self.clips.pop(key, None):
            self._by_hash.pop(before[0].sha256, None)
        self.lost.pop(key, None)
        self.skipped.pop(key, None)
        if clips:
            self.clips[key] = clips
            self._by_hash[result.sha256] = key
        else:
            logger.info("skipped %s/%s: %s", *key, reason)
            self.skipped[key] = Skipped(*key, reason, result.sha256, task.bytes, task.mtime_ns)

    def _append(self, task: Task, result: Extracted, licence: str) -> list[Clip]:
        """Write the frames of a file to the end of the array; returns its clips."""
        assert result.frames is not None
        identity = (result.sha256, task.bytes, task.mtime_ns, licence)
        clips, end = [], self._frames
        self._file.seek(end * self._row_bytes)
        for part in result.parts:
            frames = result.frames[part.start : part.stop]  # (t, f)
            place = (task.root, task.path, task.source, part.start, len(frames), end)
            clips.append(Clip(*place, *identity, part.sum, part.sum_squares))
            end += len(frames)
            rest = frames.data.cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]
        self._frames = end
        return clips

    def commit_if_due(self) -> None:
        """Commit if some seconds have passed, and commits do not take too much of the time."""
        since = time.monotonic() - self._last_commit
        if since > max(COMMIT_SECONDS, self._commit_cost / COMMIT_SHARE):
            self.commit()

    def commit(self, complete: bool = False) -> None:
        """Make everything that was added part of the corpus.

        Raises:
            OSError: the disk is full. The corpus stays in the state of the last commit.
        """
        begin = time.monotonic()
        rows = sorted(self.rows())
        # Cuts off the frames of a file that did not fit on the disk; makes up for lost ones.
        self._file.truncate(self._frames * self._row_bytes)
        os.fsync(self._file.fileno())
        whole = min(self._hashed, self._frames) // index.SHARD_FRAMES
        self._digests = index.shard_digests(
            self.folder, self.n_mels, self._frames, self._digests[:whole]
        )
        self._hashed = self._frames
        manifest = index.format_table(Clip, rows)
        name = index.manifest_name(manifest)
        if not (self.folder / name).exists():
            _replace(self.folder / name, manifest)
        skipped = index.format_table(Skipped, self.skipped.values())
        _replace(self.folder / SKIPPED_FILE, skipped)
        mean, std, hours = index.statistics(rows, self.n_mels)
        summary = {
            "format": index.FORMAT,
            "version": index.FORMAT_VERSION,
            "complete": complete,
            "mean": mean if rows else None,
            "std": std if rows else None,
            "hours": hours,
            "files": len(self.clips),
            "clips": len(rows),
            "fingerprint": index.fingerprint(rows, self.front_end),
            "front_end": self.front_end,
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
        self._last_commit = time.monotonic()
        self._commit_cost = self._last_commit - begin

    @property
    def _row_bytes(self) -> int:
        return 2 * self.n_mels


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically, after the new content is synchronised to the disk."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_skipped(path: Path) -> list[Skipped]:
    """Rows of `skipped.csv`. If it is damaged, its files are only read again."""
    try:
        return index.parse_table(Skipped, path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        logger.warning("%s is damaged (%s) and is written anew", path, error)
        return []
