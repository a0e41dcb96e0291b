"""Log-mel frames of an audio file, and its parts without silence."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import stream_audio
from ..config import HOP_LENGTH, MS_PER_FRAME
from ..files import printable
from ..log_mel import LogMel

# A half second with a lower level (RMS without the mean, relative to full scale 1.0) is silent.
# White noise at -75 dBFS has as much power as the constant that is added before the logarithm, so
# below -60 dBFS the log-mel holds little but that constant.
SILENCE_DBFS = -60.0
WINDOW_FRAMES = 50  # the level is measured in windows of 0.5 s
# Silence of this many consecutive windows (2 s) is cut out; shorter pauses are kept.
MIN_SILENT_WINDOWS = 4
MIN_CLIP_FRAMES = 16  # 0.16 s, one standard patch; shorter files are left out

_BLOCK_SECONDS = 30.0  # decoded at once; a multiple of the level's window
_SUM_FRAMES = 4096  # added up at once
# Frames of a block that are computed again with the next one. Two hide the edge. A third leaves
# more than a window at the end of the recording, which the reflection there needs.
_CONTEXT_FRAMES = 3


class Task(NamedTuple):
    """A file to be prepared."""

    file: Path
    root: str  # name of its SRC folder
    path: str  # relative to SRC, printable
    source: str  # folder that it is weighted by
    bytes: int
    mtime_ns: int
    known_sha256: str = ""  # of the content that the corpus has under this name


class Part(NamedTuple):
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
    frames: NDArray[np.float16] | None = None  # (t, f) of the whole file, memory-mapped
    parts: tuple[Part, ...] = ()


class Extractor:
    """Hashes and decodes files and computes their log-mel frames; threads can share it.

    Args:
        n_mels: number of mel bins.
        sample_rate: sample rate of the spectrogram in Hz.
        silence_dbfs: a half second with a lower level is silent.
        device: device that computes the log-mel.
        scratch: folder for the frames of single files, which are temporary files without a name.

    Attributes:
        stopped: when it is set, files that are being decoded are given up (CancelledError).
    """

    def __init__(
        self, n_mels: int, sample_rate: int, silence_dbfs: float, device: str, scratch: Path
    ) -> None:
        self.front_end = LogMel(n_mels, sample_rate=sample_rate).to(device)
        self.sample_rate = sample_rate
        self.silence_dbfs = silence_dbfs
        self.scratch = scratch
        self.stopped = threading.Event()

    def __call__(self, task: Task) -> Extracted:
        """The frames of a file. For a file that is left out, the result has a reason.

        A file with known content is not decoded.

        Raises:
            OSError: the frames cannot be written, e.g. because the disk is full.
        """
        try:
            with task.file.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return Extracted(reason=f"unreadable: {error.strerror or error}")
        if sha256 == task.known_sha256:
            return Extracted(sha256)
        levels: list[NDArray[np.float64]] = []
        try:
            frames = self._frames(task, levels)  # (t, f)
        except ValueError as error:
            reason = str(error).removeprefix(f"{printable(task.file)}: ")
            return Extracted(sha256, f"unreadable: {reason}")
        seconds = len(frames) * MS_PER_FRAME / 1000
        if len(frames) < MIN_CLIP_FRAMES:
            return Extracted(sha256, f"short: {seconds:.2f} s of audio", seconds)
        level = np.concatenate(levels)  # (w,)
        kept = list(stretches(level < self.silence_dbfs, len(frames)))
        if not kept:
            loudest = f"{level.max():.1f} dBFS in its loudest half second"
            return Extracted(sha256, f"silent: {loudest}", seconds)
        parts = tuple(Part(start, stop, *_sums(frames[start:stop])) for start, stop in kept)
        return Extracted(sha256, "", seconds, frames, parts)

    def _frames(self, task: Task, levels: list[NDArray[np.float64]]) -> NDArray[np.float16]:
        """(t, f) frames of a file on the disk; appends the levels of its windows to a list."""
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            for frames in stream_log_mel(self._read(task, levels), self.front_end):
                values = frames.half()
                if not values.isfinite().all():
                    raise ValueError("sample values too large for a power spectrum")
                file.write(values.cpu().numpy().data)
            file.flush()
            return np.memmap(file, np.float16, "r").reshape(-1, self.front_end.n_mels)

    def _read(self, task: Task, levels: list[NDArray[np.float64]]) -> Iterator[NDArray[np.float32]]:
        """Blocks of a waveform. OSError becomes ValueError, else it is one of the frames' file."""
        try:
            for block in stream_audio(task.file, _BLOCK_SECONDS, sample_rate=self.sample_rate):
                if self.stopped.is_set():
                    raise CancelledError
                levels.append(window_levels(block, self.front_end.hop_length))
                yield block
            state = task.file.stat()
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        if (state.st_size, state.st_mtime_ns) != (task.bytes, task.mtime_ns):
            raise ValueError("it changed while it was read")


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


def _sums(frames: NDArray[np.float16]) -> tuple[float, float]:
    """Sum and sum of squares of the values, in float64."""
    total = squares = 0.0
    for start in range(0, len(frames), _SUM_FRAMES):
        values = frames[start : start + _SUM_FRAMES].astype(np.float64).ravel()
        total += float(values.sum())
        squares += float(np.square(values).sum())  # a matrix product would start BLAS threads
    return total, squares
