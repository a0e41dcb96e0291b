"""Convert folders of audio to a corpus of log-mel frames for pretraining (`hear-msm-mae prepare`).

Threads decode each file, mix it to mono, resample it to 16 or 32 kHz and compute its log-mel frames
(`extract`). They run in parallel, because decoders and torch let other threads run. This thread
appends the frames to the corpus in the order of the file names (`writer`), so the corpus does not
depend on the number of threads or on interruptions.

Unreadable files, files shorter than 0.16 s, silent files, and copies of other files are left out
and listed in `skipped.csv`. Silence of 2 s or more inside a file is cut out (see
`extract.SILENCE_DBFS`). Each part between becomes one clip of any length.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    Extractor,
    Task,
)
from .index import (
    CORPUS_FILE,
    SKIPPED_FILE,
    check_settings,
    front_end_settings,
    read_summary,
    statistics,
)
from .sources import check_folders, find_files
from .writer import CorpusWriter

_LOCK = ".prepare.lock"  # file in DEST that is locked while it is written
# Files that are given out in advance keep the other threads busy while one works on a long file.
# Each result holds an open file, and systems allow a process 256 of them.
_AHEAD = 128

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
    """Make a corpus of the audio files in folders, or add them to a corpus.

    The same call continues after an interruption. Files in the corpus with the same name, size and
    modification time are not read again. Changed files are replaced, unreadable files are tried
    again, and files with damaged frames are decoded again. Files that were removed from the sources
    stay in the corpus.

    Args:
        sources: folders with audio of any format, rate and channel count that libsndfile reads.
            The source of a clip, by which training can weight it, is the first folder below.
        dest: folder of the corpus: a new or empty folder, or a corpus.
        workers: number of threads that decode, by default one per processor.
        n_mels: number of mel bins.
        sample_rate: sample rate of the corpus, 16000 or 32000 Hz; the bands reach up to half of it.
        licence: licence of the new files, which is written into the manifest.
        silence_dbfs: a half second with a lower level is silent; -inf keeps everything.
        device: device that computes the log-mel, such as "cuda".
        progress: show a progress bar on stderr.

    Returns:
        Numbers of files and clips, hours, and statistics.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: a source has no audio, `dest` lies in a source, is not a corpus or has other
            settings, the device is not available, or no file could be used.
        OSError: the disk is full. The corpus is valid and has the earlier files.
        KeyboardInterrupt: Ctrl-C was pressed. The corpus is valid and has the earlier files.
    """
    begin = time.monotonic()
    dest = Path(dest)
    if n_mels < 1 or (workers is not None and workers < 0):
        raise ValueError(f"n_mels and workers must be positive, got {n_mels} and {workers}")
    if sample_rate not in SAMPLE_RATES:
        raise ValueError(f"sample_rate must be one of {list(SAMPLE_RATES)}, got {sample_rate}")
    folders = check_folders(sources, dest)
    try:
        extractor = Extractor(n_mels, sample_rate, silence_dbfs, device, dest)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not usable here: {error}") from error
    front_end = front_end_settings(n_mels, sample_rate)
    cutting = {
        "silence_dbfs": float(silence_dbfs),
        "min_silence_frames": MIN_SILENT_WINDOWS * WINDOW_FRAMES,
        "min_clip_frames": MIN_CLIP_FRAMES,
    }
    files, roots = find_files(folders, _known_roots(dest, {**front_end, **cutting}))
    dest.mkdir(parents=True, exist_ok=True)
    with (
        _locked(dest),
        _full_disk_named(dest),
        CorpusWriter(dest, front_end, cutting, roots) as writer,
    ):
        writer.commit()
        tasks = _plan(files, writer)
        results = _extracted(extractor, tasks, workers or available_cpus())
        decoded = _take_all(writer, results, len(tasks), licence or "", progress)
    clips = list(writer.rows())
    if not clips:
        raise ValueError(f"none of {len(files)} files could be used; see {dest / SKIPPED_FILE}")
    mean, std, hours = statistics(clips, n_mels)
    return PrepareReport(
        dest=dest,
        files=len(files),
        prepared=writer.added,
        unchanged=len(files) - len(tasks),
        skipped=dict(Counter(row.reason.partition(":")[0] for row in writer.skipped.values())),
        clips=len(clips),
        hours=hours,
        mean=mean,
        std=std,
        decoded_hours=decoded / 3600,
        seconds=time.monotonic() - begin,
    )


def _plan(files: Sequence[Task], writer: CorpusWriter) -> list[Task]:
    """The files to process: new ones, changed ones, and unreadable ones."""
    tasks = []
    for file in files:
        key = (file.root, file.path)
        clips, skipped = writer.clips.get(key), writer.skipped.get(key)
        row = clips[0] if clips else skipped
        if row and (row.bytes, row.mtime_ns) == (file.bytes, file.mtime_ns):
            kind = skipped.reason.partition(":")[0] if skipped else ""
            if clips or kind in ("silent", "short"):
                continue
            if kind == "duplicate" and skipped and writer.holds(skipped.sha256):
                continue
            # An unreadable file may have become readable without another modification time.
        tasks.append(file._replace(known_sha256=clips[0].sha256) if clips else file)
    # Files with damaged frames come first, otherwise a copy of them would replace them.
    return sorted(tasks, key=lambda file: (file.root, file.path) not in writer.lost)


def _extracted(
    extractor: Extractor, tasks: Sequence[Task], workers: int
) -> Generator[tuple[Task, Extracted], None, None]:
    """Results in the order of the tasks, from several threads."""
    waiting: deque[tuple[Task, Future[Extracted]]] = deque()
    rest = iter(tasks)
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        while True:
            for task in itertools.islice(rest, _AHEAD - len(waiting)):
                waiting.append((task, pool.submit(extractor, task)))
            if not waiting:
                return
            task, future = waiting.popleft()
            yield task, future.result()
    finally:
        extractor.stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # threads that start later take the last setting


def _take_all(
    writer: CorpusWriter,
    results: Generator[tuple[Task, Extracted], None, None],
    total: int,
    licence: str,
    progress: bool,
) -> float:
    """Write results, and commit from time to time; returns the seconds of audio decoded."""
    begin, decoded = time.monotonic(), 0.0
    with (
        contextlib.closing(results),
        tqdm(total=total, unit="file", disable=not progress) as bar,
    ):
        for task, result in results:
            writer.take(task, result, licence)
            writer.commit_if_due()
            decoded += result.seconds
            speed = decoded / max(time.monotonic() - begin, 1e-9)  # clocks of Windows tick slowly
            bar.set_postfix_str(
                f"{decoded / 3600:.2f} h, {speed:.0f}x real time, {len(writer.skipped)} left out",
                refresh=False,
            )
            bar.update()
    if writer.lost:
        logger.warning(
            "%d files with damaged frames were removed from the corpus, because the sources do "
            "not have them (first: %s)",
            len(writer.lost),
            "/".join(next(iter(writer.lost))),
        )
    return decoded


def _known_roots(dest: Path, settings: Mapping[str, float]) -> dict[str, str]:
    """The source folders of the corpus in a folder, none if the folder is new.

    Raises:
        ValueError: the folder holds something else, or a corpus with other settings.
    """
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return {}
    if not (dest / CORPUS_FILE).exists():
        if (dest / _LOCK).exists():
            return {}  # left by a run that was killed at its start
        raise ValueError(f"{dest} exists and is not a corpus; give a new folder")
    summary = read_summary(dest)
    check_settings(dest, {**summary["front_end"], **summary["cutting"]}, settings)
    return dict(summary["roots"])


@contextlib.contextmanager
def _locked(dest: Path) -> Iterator[None]:
    """Lock DEST against a second run; the lock ends with the process."""
    try:
        with FileLock(dest / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise ValueError(f"another process is preparing {dest}; wait for it") from error


@contextlib.contextmanager
def _full_disk_named(dest: Path) -> Iterator[None]:
    """Say what is in the corpus and what to do when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        files = read_summary(dest)["files"] if (dest / CORPUS_FILE).exists() else 0
        raise OSError(
            error.errno,
            f"cannot write to {dest} ({error.strerror}); it holds {files} files. "
            "Free some space and run the same command again to continue",
        ) from error
