"""Folders of audio -> a corpus of log-mel frames for pretraining (`hear-msm-mae prepare`).

Every file is decoded, averaged to mono, resampled to 16 or 32 kHz and turned into log-mel frames by
worker processes (`extract`); this process appends the frames to the corpus in the order of the
file names (`writer`), so the corpus does not depend on the number of workers or on interruptions.

Left out, and listed in `skipped.csv` with the reason: unreadable files; files shorter than
0.16 s; silent files; files whose bytes are those of a file that is in already. Silence of 2 s or
more inside a file is cut out (see `extract.SILENCE_DBFS`), and each stretch between becomes one
clip, however long: training crops start anywhere in it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..config import SAMPLE_RATE, SAMPLE_RATES
from ..files import available_cpus
from .extract import (
    MIN_CLIP_FRAMES,
    MIN_SILENT_WINDOWS,
    SILENCE_DBFS,
    WINDOW_FRAMES,
    Extracted,
    Options,
    Task,
    extract,
)
from .index import (
    SKIPPED_FILE,
    FrontEnd,
    check_front_end,
    escape,
    read_summary,
    statistics,
    unescape,
)
from .parallel import ordered_map
from .sources import check_folders, find_files, name_sources
from .writer import CorpusWriter, Key

_COMMIT_SECONDS = 5.0  # at least so long between two writings of the index
_COMMIT_SHARE = 0.02  # of the time may be spent on them
_SPOOL = ".spool"  # folder in DEST for the frames of single files
_LOCK = ".prepare.lock"  # file in DEST that is locked while it is written

logger = logging.getLogger(__name__)


@dataclass
class PrepareReport:
    """What `prepare` did."""

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


def prepare(
    sources: Sequence[str | Path],
    dest: str | Path,
    *,
    workers: int | None = None,
    n_mels: int = 80,
    sample_rate: int = SAMPLE_RATE,
    licence: str | None = None,
    silence_dbfs: float = SILENCE_DBFS,
    device: str = "cpu",
    progress: bool = True,
) -> PrepareReport:
    """Make a corpus of the audio files below some folders, or add them to one.

    Run it again with the same arguments to continue after an interruption: files that are in
    the corpus, by name, size and modification time, are not read again; files that changed are
    replaced; files that could not be read are tried again. Files that are gone from the sources
    stay in the corpus. Files whose frames are damaged on the disk are decoded again.

    Args:
        sources: folders with audio of any format, rate and channel count that libsndfile reads.
            A clip's source (training can weight by it) is the first folder below.
        dest: folder of the corpus, new or empty or made by this function.
        workers: processes; by default one per processor; 0 works in this process. A script that
            is to start workers has to call this from below `if __name__ == "__main__"`.
        n_mels: mel bins.
        sample_rate: that the audio is resampled to, 16000 or 32000 Hz; the bands reach up to half
            of it.
        licence: tag that is noted in the manifest for the files that are new.
        silence_dbfs: a half second of a lower level counts as silent; -inf keeps everything.
        device: where the log-mel is computed, such as "cuda"; every worker process uses it.
        progress: show a progress bar on stderr.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: a source is empty of audio; dest lies in a source, is no corpus, or one with
            other settings; the device cannot be used; or no file could be used.
        OSError: the disk is full; the corpus holds what came before.
        KeyboardInterrupt: Ctrl-C; the same.
    """
    begin = time.monotonic()
    dest = Path(dest)
    if n_mels < 1 or (workers is not None and workers < 0):
        raise ValueError(f"n_mels and workers must be positive, got {n_mels} and {workers}")
    if sample_rate not in SAMPLE_RATES:
        raise ValueError(f"sample_rate must be one of {list(SAMPLE_RATES)}, got {sample_rate}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not usable here: {error}") from error
    folders = check_folders(sources, dest)
    cutting = {
        "silence_dbfs": float(silence_dbfs),
        "min_silence_frames": MIN_SILENT_WINDOWS * WINDOW_FRAMES,
        "min_clip_frames": MIN_CLIP_FRAMES,
    }
    front_end = FrontEnd(n_mels, sample_rate)
    roots = _check_dest(dest, front_end, cutting)
    found = find_files(folders, roots)
    dest.mkdir(parents=True, exist_ok=True)
    with _locked(dest):
        writer = CorpusWriter(dest, front_end, cutting, found.roots)
        tasks = _plan(name_sources(found.files, writer.rows()), writer)
        job = _Job(writer, licence or "", begin, len(tasks), progress)
        count = min(available_cpus() if workers is None else workers, len(tasks))
        spool = dest / _SPOOL
        try:
            try:
                writer.commit()
                shutil.rmtree(spool, ignore_errors=True)
                spool.mkdir()
                options = Options(str(spool), front_end, silence_dbfs, device)
                work = functools.partial(extract, options=options)
                with contextlib.closing(ordered_map(work, tasks, count)) as results:
                    job.run(results)
                if writer.lost:
                    logger.warning(
                        "%d files had damaged frames and are not below the given sources; the "
                        "corpus lacks them now (first: %s)",
                        len(writer.lost),
                        "/".join(next(iter(writer.lost))),
                    )
            finally:
                shutil.rmtree(spool, ignore_errors=True)  # first: it may be what fills the disk
                job.finish()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(
                error.errno,
                f"cannot write to {dest} ({error.strerror}); it holds {job.committed} files. "
                "Free some space and run the same command again to continue",
            ) from error
    return job.report(len(found.files))


class _Job:
    """Takes results into the corpus and keeps count."""

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
        self.committed = 0  # files that are in the corpus whatever happens
        self._last_commit = begin
        self._commit_cost = 0.0

    def run(self, results: Iterator[tuple[Task, Extracted | None]]) -> None:
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
        """Keep what was done, whatever ended it."""
        try:
            self._commit(complete=self.done == self.total)
        except OSError as error:
            logger.error("the last files are not in the corpus (%s)", error)
            if self.done == self.total:  # nothing else tells the caller
                raise
        finally:
            self.writer.close()

    def report(self, files: int) -> PrepareReport:
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


def _plan(files: list[Task], writer: CorpusWriter) -> list[Task]:
    """The files that have to be looked at: new ones, changed ones, some that were left out."""
    tasks = []
    for file in files:
        key: Key = (file.root, file.path)
        clips, skipped = writer.clips.get(key), writer.skipped.get(key)
        state = (file.bytes, file.mtime_ns)
        if clips:
            if (clips[0].bytes, clips[0].mtime_ns) != state:
                tasks.append(file._replace(known_sha256=clips[0].sha256))
            continue
        if skipped and (skipped.bytes, skipped.mtime_ns) == state:
            kind = skipped.reason.partition(":")[0]
            if kind == "duplicate" and writer.holder_of(skipped.sha256):
                continue
            if kind in ("silent", "short"):
                continue
            # Unreadable: permissions and networks change without a trace.
        tasks.append(file)
    # Files that were lost go first: their duplicates would take their place.
    return sorted(tasks, key=lambda file: (file.root, file.path) not in writer.lost)


def _check_dest(dest: Path, front_end: FrontEnd, cutting: dict[str, float]) -> dict[str, str]:
    """Refuse a folder that is something else; returns the sources that are in it already."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return {}
    try:
        summary = read_summary(dest)
    except FileNotFoundError as error:
        if (dest / _LOCK).exists():
            return {}  # a run that was killed at its very beginning
        raise ValueError(f"{dest} exists and is not a corpus; give a new folder") from error
    check_front_end(dest, summary, front_end)
    for name, value in cutting.items():
        if summary["cutting"].get(name) != value:
            raise ValueError(
                f"the corpus in {dest} was made with {name} = {summary['cutting'].get(name)}, "
                f"not {value}; use the same value or a new folder"
            )
    return {unescape(root): unescape(folder) for root, folder in summary["roots"].items()}


@contextlib.contextmanager
def _locked(dest: Path) -> Iterator[None]:
    """Keep a second run away from DEST; the lock goes with the process, however it ends."""
    try:
        with FileLock(dest / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise ValueError(f"another process is preparing {dest}; wait for it") from error
