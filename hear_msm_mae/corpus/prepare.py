"""Convert folders of audio to a corpus of log-mel frames for pretraining (`hear-msm-mae prepare`).

Worker processes decode each file, mix it to mono, resample it to 16 or 32 kHz and compute its
log-mel frames (`extract`). This process appends the frames to the corpus in the order of the file
names (`writer`), so the corpus does not depend on the number of workers or on interruptions.

Unreadable files, files shorter than 0.16 s, silent files, and copies of other files are left out
and listed in `skipped.csv`. Silence of 2 s or more inside a file is cut out (see
`extract.SILENCE_DBFS`). Each part between becomes one clip of any length.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..config import SAMPLE_RATE, SAMPLE_RATES
from ..files import available_cpus
from .extract import (
    MIN_CLIP_FRAMES,
    MIN_SILENT_WINDOWS,
    SILENCE_DBFS,
    WINDOW_FRAMES,
    Options,
    Task,
    extract,
)
from .index import (
    FrontEnd,
    check_front_end,
    read_summary,
    unescape,
)
from .job import Job, PrepareReport
from .parallel import ordered_map
from .sources import check_folders, find_files, name_sources
from .writer import CorpusWriter, Key

_SPOOL = ".spool"  # folder in DEST for the frames of single files
_LOCK = ".prepare.lock"  # file in DEST that is locked while it is written

logger = logging.getLogger(__name__)


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
        workers: number of processes, by default one per processor; 0 uses this process. A script
            that starts workers must call this function below `if __name__ == "__main__"`.
        n_mels: number of mel bins.
        sample_rate: sample rate of the corpus, 16000 or 32000 Hz; the bands reach up to half of it.
        licence: licence of the new files, which is written into the manifest.
        silence_dbfs: a half second with a lower level is silent; -inf keeps everything.
        device: device that computes the log-mel, such as "cuda"; every worker process uses it.
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
        job = Job(writer, licence or "", begin, len(tasks), progress)
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
                        "%d files with damaged frames were removed from the corpus, because the "
                        "sources do not have them (first: %s)",
                        len(writer.lost),
                        "/".join(next(iter(writer.lost))),
                    )
            finally:
                shutil.rmtree(spool, ignore_errors=True)  # first, because it may fill the disk
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


def _plan(files: list[Task], writer: CorpusWriter) -> list[Task]:
    """The files to process: new ones, changed ones, and unreadable ones."""
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
            # An unreadable file may have become readable without another modification time.
        tasks.append(file)
    # Files with damaged frames come first, otherwise a copy of them would replace them.
    return sorted(tasks, key=lambda file: (file.root, file.path) not in writer.lost)


def _check_dest(dest: Path, front_end: FrontEnd, cutting: dict[str, float]) -> dict[str, str]:
    """Raise ValueError for a folder that is not such a corpus; returns the sources in it."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return {}
    try:
        summary = read_summary(dest)
    except FileNotFoundError as error:
        if (dest / _LOCK).exists():
            return {}  # left by a run that was killed at its start
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
    """Lock DEST against a second run; the lock ends with the process."""
    try:
        with FileLock(dest / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise ValueError(f"another process is preparing {dest}; wait for it") from error
