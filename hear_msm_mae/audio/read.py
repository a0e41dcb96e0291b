"""Audio files -> mono waveforms at 16 kHz, decoded to their true end; soxr resamples."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..files import printable
from .channels import Mixer, warn_of_cancellation
from .decoders import Block, decode

# Audio that is read before and after a range, so that the resampling filter sees the same
# neighbours as in the whole file. soxr's HQ filter is much shorter.
_FILTER_MARGIN = 0.1  # s

# Hz; other rates mean a damaged header. Below 100 Hz no sound would reach the lowest mel band, and
# resampling would make a thousand times more samples than there are.
RATES = range(100, 10_000_001)

# Each warning about a recording appears once, even if it is read in many parts.
_warn_once = functools.lru_cache(maxsize=1024)(warn_of_cancellation)

_NOTHING = np.zeros(0, np.float32)
_Mono = NDArray[np.float32]  # (n,)


def read_audio(
    path: str | Path,
    start: float = 0.0,
    stop: float | None = None,
    *,
    channel: str | int = "mix",
    sample_rate: int = SAMPLE_RATE,
) -> _Mono:
    """Read a file, or a part of it, as a mono waveform.

    Values are not clipped: resampling and floating-point files may exceed [-1, 1]. A part has the
    same samples as the same slice of the whole file. The package's logger warns of a file that is
    cut off, has a wrong header, or has channels that cancel each other.

    Args:
        path: any format that libsndfile reads, and with PyAV installed (the extra "formats")
            MP4, AAC, WebM, WMA, FLAC in Ogg and others. PyAV also reads what libsndfile leaves
            out of MP3 and FLAC files with a wrong header or damaged bytes.
        start: start of the part in seconds.
        stop: end of the part in seconds. None, or a value beyond the end, means the file's end.
        channel: "mix" for the mean of the channels, "left", "right", or a number from 0.
        sample_rate: sample rate of the result in Hz.

    Returns:
        (n,) float32.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be decoded, is damaged or empty, holds NaN or infinity, or
            lacks the channel, or the part is empty. The message names the file and the reason.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/stereo.wav", np.zeros((44100, 2)), 44100)
    ...     read_audio(f"{folder}/stereo.wav").shape, read_audio(f"{folder}/stereo.wav", 0.5).shape
    ((16000,), (8000,))
    """
    return np.concatenate(list(_stretch(path, start, stop, channel, sample_rate)))


def stream_audio(
    path: str | Path,
    seconds: float = 60.0,
    start: float = 0.0,
    stop: float | None = None,
    *,
    channel: str | int = "mix",
    sample_rate: int = SAMPLE_RATE,
) -> Iterator[_Mono]:
    """Read a file like `read_audio`, in blocks, so that memory does not grow with its length.

    Args:
        path: any file that `read_audio` takes.
        seconds: length of the blocks in seconds.
        start, stop, channel, sample_rate: as for `read_audio`. A `start` of i / sample_rate
            begins at the waveform's sample i.

    Yields:
        (n,) float32 mono; every block has n = round(seconds sample_rate) samples except the
        last one, which has at least one.

    Raises:
        FileNotFoundError, ValueError: as `read_audio`. Damage is reported when it is reached.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.flac", np.zeros(20000), 8000)
    ...     [len(block) for block in stream_audio(f"{folder}/a.flac", seconds=1)]
    [16000, 16000, 8000]
    """
    size = round(seconds * sample_rate)
    if size < 1:
        raise ValueError(f"seconds must be positive, got {seconds}")
    waiting: list[_Mono] = []
    total = 0
    for piece in _stretch(path, start, stop, channel, sample_rate):
        waiting.append(piece)
        total += len(piece)
        if total >= size:
            joined = np.concatenate(waiting)
            whole = total - total % size
            yield from joined[:whole].reshape(-1, size)
            waiting, total = [joined[whole:]], total - whole
    if total:
        yield np.concatenate(waiting)


def count_channels(path: str | Path) -> int:
    """Number of channels of a file (of its first part, if the number changes).

    Raises:
        FileNotFoundError, ValueError: as `read_audio`.
    """
    for block in decode(path, stop=0.1):
        return block.samples.shape[1]
    raise ValueError(f"{printable(path)}: holds no audio samples")


def resample(waveform: _Mono, rate: int, sample_rate: int = SAMPLE_RATE) -> _Mono:
    """Resample a waveform (n,) at `rate` Hz in the same way as files."""
    resampled = _resampler(rate, sample_rate)
    return np.concatenate([resampled(waveform, False), resampled(_NOTHING, True)])


def _stretch(
    path: str | Path, start: float, stop: float | None, channel: str | int, sample_rate: int
) -> Iterator[_Mono]:
    """Non-empty blocks of the file's waveform from `start` to `stop` seconds."""
    if not (start >= 0 and (stop is None or stop > start)):
        raise ValueError(f"start and stop must satisfy 0 <= start < stop, got {start} and {stop}")
    first = round(start * sample_rate)
    stop = None if stop == math.inf else stop
    last = None if stop is None else round(stop * sample_rate)
    mixer = Mixer(printable(path), channel)
    empty = True
    for place, piece in _resampled(path, start, stop, mixer, sample_rate):
        part = piece[max(0, first - place) : None if last is None else max(0, last - place)]
        if len(part):
            empty = False
            yield part
    if mixer.cancelled:
        _warn_once(printable(path))
    if empty:
        raise ValueError(f"{printable(path)}: no audio from {start} s on, the file is shorter")


def _resampled(
    path: str | Path, start: float, stop: float | None, mixer: Mixer, sample_rate: int
) -> Iterator[tuple[int, _Mono]]:
    """Mono blocks with a margin around the range, and the first sample of each.

    Parts of a file with different rates are resampled separately.
    """
    # A whole second is a whole number of samples at every rate.
    origin = max(0, int(start - _FILTER_MARGIN))  # s
    end = None if stop is None else stop + _FILTER_MARGIN  # s
    decoded = place = 0  # frames, samples
    for number, (shape, blocks) in enumerate(itertools.groupby(decode(path, origin, end), _shape)):
        _, rate, _ = shape
        if rate not in RATES:
            raise ValueError(f"{printable(path)}: its header says {rate} samples per second")
        skip = 0 if number else origin * rate  # frames, left out before resampling
        resampled = _resampler(rate, sample_rate)
        begin, frame = place, 0
        place += skip // rate * sample_rate
        for block in blocks:
            frame = block.first + len(block.samples)
            kept = block.samples[max(0, skip - block.first) :]
            if len(kept):
                piece = resampled(mixer(kept), False)
                yield place, piece
                place += len(piece)
            if end is not None and place >= end * sample_rate:
                break
        decoded += frame
        if frame > skip:
            piece = resampled(_NOTHING, True)
            yield place, piece
            place += len(piece)
        else:
            place = begin + round(frame * sample_rate / rate)
        if end is not None and place >= end * sample_rate:
            return
    if not decoded and not origin:
        raise ValueError(f"{printable(path)}: holds no audio samples")


def _shape(block: Block) -> tuple[int, int, int]:
    return block.part, block.rate, block.samples.shape[1]


def _resampler(rate: int, sample_rate: int) -> Callable[[_Mono, bool], _Mono]:
    """Function (block, is_last) -> resampled block, with state."""
    if rate == sample_rate:
        return lambda block, last: block
    return soxr.ResampleStream(rate, sample_rate, 1, np.float32, "HQ").resample_chunk
