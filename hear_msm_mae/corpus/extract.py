"""Write the log-mel frames of an audio file to the disk, and find its parts without silence."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import stream_audio
from ..config import HOP_LENGTH
from ..files import printable
from ..log_mel import LogMel
from .index import FrontEnd

# A half second with a lower level (RMS without the mean, relative to full scale 1.0) is silent.
# White noise at -75 dBFS has as much power as the constant that is added before the logarithm, so
# below -60 dBFS the log-mel holds little but that constant.
SILENCE_DBFS = -60.0
WINDOW_FRAMES = 50  # the level is measured in windows of 0.5 s
# Silence of this many consecutive windows (2 s) is cut out; shorter pauses are kept.
MIN_SILENT_WINDOWS = 4
MIN_CLIP_FRAMES = 16  # 0.16 s, one standard patch; shorter files are left out

_BLOCK_SECONDS = 30.0  # decoded at once; a multiple of the level's window
_HASH_BYTES = 2**20  # read at once
_SUM_FRAMES = 4096  # added up at once
# Frames of a block that are computed again with the next one. Two hide the edge. A third leaves
# more than a window at the end of the recording, which the reflection there needs.
_CONTEXT_FRAMES = 3


class Task(NamedTuple):
    """A file to be prepared."""

    file: str  # path to open
    root: str  # name of its SRC folder
    path: str  # relative to SRC, escaped
    source: str  # folder that it is weighted by
    bytes: int
    mtime_ns: int
    known_sha256: str  # of the content that the corpus has under this name, or empty


class Options(NamedTuple):
    """Options that are the same for all files."""

    spool: str  # folder for the frames of single files
    front_end: FrontEnd
    silence_dbfs: float
    device: str  # where the log-mel is computed


class Stretch(NamedTuple):
    """Frames start..stop of a file, with sums over their values in float64."""

    start: int
    stop: int
    sum: float
    sum_squares: float


class Extracted(NamedTuple):
    """The result of one file."""

    sha256: str = ""
    reason: str = ""  # why it is left out; empty when it is kept
    seconds: float = 0.0  # audio decoded
    spool: str = ""  # raw float16 file (frames, n_mels); empty when nothing was kept
    stretches: tuple[Stretch, ...] = ()


def extract(task: Task, options: Options) -> Extracted:
    """Hash and decode a file, and write its log-mel frames to a new file in `options.spool`.

    A file with known content is not decoded. A file that cannot be decoded gives a result with a
    reason, not an error.

    Raises:
        OSError: the frames cannot be written, e.g. because the disk is full.
    """
    try:
        sha256 = _sha256(task.file)
    except OSError as error:
        return Extracted(reason=f"unreadable: {error.strerror or error}")
    if sha256 == task.known_sha256:
        return Extracted(sha256)
    handle, spool = tempfile.mkstemp(dir=options.spool)
    result = Extracted(sha256)
    try:
        with os.fdopen(handle, "w+b") as file:
            result = _extract(task, options, sha256, file)
        if result.stretches:
            result = result._replace(spool=spool)
        return result
    finally:
        if not result.stretches:
            Path(spool).unlink()


def _extract(task: Task, options: Options, sha256: str, file: BinaryIO) -> Extracted:
    levels: list[NDArray[np.float64]] = []
    samples, rate = 0, options.front_end.sample_rate
    front_end = _front_end(options.front_end, options.device)

    def measured() -> Iterator[NDArray[np.float32]]:
        nonlocal samples
        blocks = stream_audio(task.file, _BLOCK_SECONDS, sample_rate=rate)
        while True:
            try:
                block = next(blocks, None)
            except OSError as error:  # of the file; those of the spool are not caught
                raise ValueError(error.strerror or str(error)) from error
            if block is None:
                return
            samples += len(block)
            levels.append(window_levels(block, front_end.hop_length))
            yield block

    try:
        for frames in stream_log_mel(measured(), front_end):
            values = frames.half()
            if not values.isfinite().all():
                raise ValueError("sample values too large for a power spectrum")
            file.write(values.cpu().numpy().data)
    except ValueError as error:
        reason = str(error).removeprefix(f"{printable(task.file)}: ")
        return Extracted(sha256, f"unreadable: {reason}", samples / rate)
    seconds = samples / rate
    state = Path(task.file).stat()
    if (state.st_size, state.st_mtime_ns) != (task.bytes, task.mtime_ns):
        return Extracted(sha256, "unreadable: it changed while it was read", seconds)
    total = front_end.num_frames(samples)
    if total < MIN_CLIP_FRAMES:
        return Extracted(sha256, f"short: {seconds:.3f} s of audio", seconds)
    level = np.concatenate(levels)
    kept = [(a, b) for a, b in stretches(level < options.silence_dbfs, total)]
    if not kept:
        reason = f"silent: {level.max():.1f} dBFS in its loudest half second"
        return Extracted(sha256, reason, seconds)
    file.flush()
    array = np.memmap(file, np.float16, "r", shape=(total, front_end.n_mels))
    return Extracted(
        sha256, seconds=seconds, stretches=tuple(Stretch(a, b, *_sums(array[a:b])) for a, b in kept)
    )


def stream_log_mel(blocks: Iterable[NDArray[np.float32]], front_end: LogMel) -> Iterator[Tensor]:
    """Log-mel frames of a waveform that arrives in blocks, in bounded memory.

    Args:
        blocks: (n,) float32 consecutive blocks of one waveform.
        front_end: front end on its device.

    Yields:
        (t, f) float32 parts of the `LogMel.log_mel` of the whole waveform, 1 + n // 160 frames in
        all at 16 kHz.

    >>> pieces = stream_log_mel([np.ones(8000, np.float32)] * 2, LogMel(40))
    >>> sum(len(piece) for piece in pieces)
    101
    """
    waveform = np.zeros(0, np.float32)
    window, hop = front_end.window_length, front_end.hop_length
    done = 0  # frames of `waveform` that are out already

    def emit(stop: int) -> Tensor:
        frames = front_end.log_mel_range(torch.from_numpy(waveform)[None], done, stop)
        return frames[0].T.contiguous()

    for block in blocks:
        waveform = np.concatenate([waveform, block])
        stop = (len(waveform) - window // 2) // hop + 1  # whole windows arrived
        if stop > done and len(waveform) > window:
            yield emit(stop)
            drop = max(0, stop - _CONTEXT_FRAMES)
            waveform, done = waveform[drop * hop :], stop - drop
    if (stop := front_end.num_frames(len(waveform))) > done:
        yield emit(stop)


def window_levels(
    waveform: NDArray[np.float32], hop_length: int = HOP_LENGTH
) -> NDArray[np.float64]:
    """Level of each window of 0.5 s (the last one may be shorter), without its constant part.

    Args:
        waveform: (n,).
        hop_length: samples in 10 ms.

    Returns:
        (w,) float64, dB re full scale 1.0; digital silence is -inf.

    >>> window_levels(np.tile(np.float32([0.1, -0.1]), 6000)).round(3)
    array([-20., -20.])
    """
    size = WINDOW_FRAMES * hop_length
    whole = len(waveform) - len(waveform) % size
    values = waveform.astype(np.float64)
    power = values[:whole].reshape(-1, size).var(axis=1)
    if len(values) > whole:
        power = np.append(power, values[whole:].var())
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power)


def stretches(silent: NDArray[np.bool_], total_frames: int) -> Iterator[tuple[int, int]]:
    """Frame ranges that remain when long silence is cut out.

    Args:
        silent: (w,) whether each window of 0.5 s is silent.
        total_frames: frames of the file; those behind the last window belong to it.

    Yields:
        (start, stop) of each stretch; nothing when all windows are silent.

    >>> list(stretches(np.array([0, 1, 0, 1, 1, 1, 1, 0], bool), 401))
    [(0, 150), (350, 401)]
    """
    if silent.all():
        return
    edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
    runs = edges.reshape(-1, 2)  # [first silent window, first loud window)
    runs = runs[runs[:, 1] - runs[:, 0] >= MIN_SILENT_WINDOWS]
    starts = [0, *(runs[:, 1])]
    stops = [*(runs[:, 0]), len(silent)]
    for first, last in zip(starts, stops, strict=True):
        if first < last:
            stop = total_frames if last == len(silent) else int(last) * WINDOW_FRAMES
            yield int(first) * WINDOW_FRAMES, stop


@functools.cache
def _front_end(settings: FrontEnd, device: str) -> LogMel:
    return LogMel(settings.n_mels, sample_rate=settings.sample_rate).to(device)


def _sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _sums(frames: NDArray[np.float16]) -> tuple[float, float]:
    """Sum and sum of squares of the values, in float64."""
    total = squares = 0.0
    for start in range(0, len(frames), _SUM_FRAMES):
        values = frames[start : start + _SUM_FRAMES].astype(np.float64).ravel()
        total += float(values.sum())
        squares += float(np.square(values).sum())  # a matrix product would start BLAS threads
    return total, squares
