"""The work of `prepare` on its results: add them to the corpus, commit, and report."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .extract import Extracted, Task
from .index import SKIPPED_FILE, escape, statistics
from .writer import CorpusWriter

_COMMIT_SECONDS = 5.0  # minimum time between two commits
_COMMIT_SHARE = 0.02  # maximum share of the time for commits

logger = logging.getLogger(__name__)


@dataclass
class PrepareReport:
    """The result of `prepare`."""

    dest: Path
    files: int  # audio files found
    prepared: int  # decoded and added in this run
    unchanged: int  # were in the corpus, or left out, already
    skipped: dict[str, int]  # left out: reason ("silent", "duplicate", ...) -> files
    clips: int  # in the whole corpus
    hours: float  # in the whole corpus
    mean: float  # of all values of the corpus
    std: float
    decoded_hours: float  # of audio in this run
    seconds: float  # that the run took

    @property
    def speed(self) -> float:
        """Times real time: audio decoded per time that the run took."""
        return 3600 * self.decoded_hours / max(self.seconds, 1e-9)


class Job:
    """Adds results to the corpus and counts them."""

    def __init__(
        self, writer: CorpusWriter, licence: str, begin: float, total: int, progress: bool
    ) -> None:
        self.writer = writer
        self.licence = licence
        self.begin = begin
        self.total = total
        self.progress = progress
        self.prepared = self.done = 0
        self.skipped: Counter[str] = Counter()
        self.decoded_seconds = 0.0
        self.committed = 0  # files of the last commit
        self._last_commit = begin
        self._commit_cost = 0.0

    def run(self, results: Iterator[tuple[Task, Extracted | None]]) -> None:
        """Add results to the corpus, and commit from time to time."""
        with tqdm(total=self.total, unit="file", disable=not self.progress) as bar:
            for task, result in results:
                died = Extracted(reason="unreadable: the process that decoded it died")
                self._take(task, result or died)
                hours, elapsed = self.decoded_seconds / 3600, time.monotonic() - self.begin
                bar.set_postfix_str(
                    f"{hours:.2f} h, {self.decoded_seconds / elapsed:.0f}x real time, "
                    f"{self.skipped.total()} skipped",
                    refresh=False,
                )
                bar.update()
                since = time.monotonic() - self._last_commit
                if since > max(_COMMIT_SECONDS, self._commit_cost / _COMMIT_SHARE):
                    self._commit(complete=False)

    def _take(self, task: Task, result: Extracted) -> None:
        self.decoded_seconds += result.seconds
        holder = self.writer.holder_of(result.sha256)
        key = (task.root, task.path)
        if result.reason:
            self._skip(task, escape(result.reason), result.sha256)
        elif holder == key:
            self.writer.touch(task)
        elif holder:
            self._skip(task, f"duplicate: of {'/'.join(holder)}", result.sha256)
        else:
            self.writer.add(task, result.sha256, result.spool, result.stretches, self.licence)
            self.prepared += 1
        if result.spool:
            Path(result.spool).unlink()
        self.done += 1

    def _skip(self, task: Task, reason: str, sha256: str) -> None:
        self.writer.skip(task, reason, sha256)
        self.skipped[reason.partition(":")[0]] += 1
        logger.info("skipped %s/%s: %s", task.root, task.path, reason)

    def _commit(self, complete: bool) -> None:
        begin = time.monotonic()
        self.writer.commit(complete)
        self._last_commit = time.monotonic()
        self._commit_cost = self._last_commit - begin
        self.committed = len(self.writer.clips)

    def finish(self) -> None:
        """Commit and close the corpus, also after an error."""
        try:
            self._commit(complete=self.done == self.total)
        except OSError as error:
            logger.error("the last files are not in the corpus (%s)", error)
            if self.done == self.total:  # nothing else tells the caller
                raise
        finally:
            self.writer.close()

    def report(self, files: int) -> PrepareReport:
        """The report of the run; ValueError if the corpus has no clips."""
        clips = [clip for clips in self.writer.clips.values() for clip in clips]
        if not clips:
            raise ValueError(
                f"none of {files} files could be used; see {self.writer.folder / SKIPPED_FILE}"
            )
        mean, std, hours = statistics(clips, self.writer.n_mels)
        return PrepareReport(
            dest=self.writer.folder,
            files=files,
            prepared=self.prepared,
            unchanged=files - self.total,
            skipped=dict(Counter(s.reason.partition(":")[0] for s in self.writer.skipped.values())),
            clips=len(clips),
            hours=hours,
            mean=mean,
            std=std,
            decoded_hours=self.decoded_seconds / 3600,
            seconds=time.monotonic() - self.begin,
        )
