"""Audio files -> mono 16 kHz waveforms: soundfile decodes, soxr resamples."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from .config import SAMPLE_RATE
from .files import printable

# Endings beside the format names that libsndfile reports. RAW is left out: such a file does not
# say its rate, so it has to be converted by somebody who knows.
_MORE_SUFFIXES = frozenset(
    (".aif", ".aifc", ".bwf", ".iff", ".8svx", ".mp2", ".oga", ".opus", ".sf", ".snd", ".sph")
)
AUDIO_SUFFIXES: frozenset[str] = (
    frozenset(f".{name.lower()}" for name in soundfile.available_formats()) | _MORE_SUFFIXES
) - {".raw"}

# Decoded values (frames x channels) held at once: 4 Mi float32 values, 16 MiB.
_MAX_DECODED_VALUES = 2**22
# Read before and after a stretch, so that the resampling filter sees the same neighbours there
# as in the whole file. soxr's HQ filter is much shorter.
_FILTER_MARGIN = 0.1  # s

_NOTHING = np.zeros(0, np.float32)
_Block = NDArray[np.float32]


def find_audio(
    paths: Iterable[str | Path], on_error: Callable[[OSError], None] | None = None
) -> list[Path]:
    """Audio files: files as they are given, folders searched recursively.

    Inside folders, files count whose ending is in `AUDIO_SUFFIXES`; hidden files and folders (a
    leading dot) are left out. Symbolic links are followed, each folder is visited once.

    Args:
        paths: files and folders; a file is kept whatever its ending.
        on_error: told of folders below that cannot be listed; by default they are left out.

    Returns:
        Paths without repetition: arguments in their order, files of a folder sorted.

    Raises:
        FileNotFoundError: an argument does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.wav", "a.FLAC", ".hidden.wav", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in find_audio([folder])]
    ['a.FLAC', 'b.wav']
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found.update(dict.fromkeys(sorted(_walk(path, on_error))))
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"no such file or folder: {printable(path)}")
    return list(found)


def read_audio(
    path: str | Path, start: float = 0.0, stop: float | None = None
) -> NDArray[np.float32]:
    """Read a file, or a stretch of it, as a mono waveform at 16 kHz.

    Channels are averaged. Values are not clipped: resampling, and files in floating point, may
    go beyond [-1, 1]. A stretch holds the same samples as the same slice of the whole file.

    Args:
        path: any format, rate and channel count that libsndfile reads.
        start: where to begin, in seconds.
        stop: where to end, in seconds; None, or beyond the end: the end of the file.

    Returns:
        (n,) float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, is empty, or holds NaN or infinity; or the
            stretch is empty. The message names the file and the reason.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/stereo.wav", np.zeros((44100, 2)), 44100)
    ...     read_audio(f"{folder}/stereo.wav").shape, read_audio(f"{folder}/stereo.wav", 0.5).shape
    ((16000,), (8000,))
    """
    return np.concatenate(list(_stretch(path, start, stop)))


def stream_audio(
    path: str | Path, seconds: float = 60.0, start: float = 0.0, stop: float | None = None
) -> Iterator[NDArray[np.float32]]:
    """Read a file like `read_audio`, in blocks, in memory that does not grow with the file.

    Args:
        path: any file that `read_audio` takes.
        seconds: length of the blocks.
        start, stop: the stretch to read, as for `read_audio`.

    Yields:
        (n,) float32 mono at 16 kHz; every block has n = round(16000 seconds) samples except the
        last one, which has at least one.

    Raises:
        FileNotFoundError, ValueError: as `read_audio`; damage is met when its place is reached.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.flac", np.zeros(20000), 8000)
    ...     [len(block) for block in stream_audio(f"{folder}/a.flac", seconds=1)]
    [16000, 16000, 8000]
    """
    size = round(seconds * SAMPLE_RATE)
    if size < 1:
        raise ValueError(f"seconds must be positive, got {seconds}")
    waiting: list[NDArray[np.float32]] = []
    total = 0
    for piece in _stretch(path, start, stop):
        waiting.append(piece)
        total += len(piece)
        if total >= size:
            joined = np.concatenate(waiting)
            whole = total - total % size
            yield from joined[:whole].reshape(-1, size)
            waiting, total = [joined[whole:]], total - whole
    if total:
        yield np.concatenate(waiting)


def _stretch(path: str | Path, start: float, stop: float | None) -> Iterator[NDArray[np.float32]]:
    """Pieces of the file's waveform, all of them with samples, from `start` to `stop` seconds."""
    if not (start >= 0 and (stop is None or stop > start)):
        raise ValueError(f"start and stop must satisfy 0 <= start < stop, got {start} and {stop}")
    # At whole seconds the sample grids of any two rates meet.
    origin = max(0, int(start - _FILTER_MARGIN))
    first = round((start - origin) * SAMPLE_RATE)
    last = None if stop is None else round((stop - origin) * SAMPLE_RATE)
    position = 0
    empty = True
    for piece in _resampled(path, origin, None if stop is None else stop + _FILTER_MARGIN):
        part = piece[max(0, first - position) : None if last is None else max(0, last - position)]
        position += len(piece)
        if len(part):
            empty = False
            yield part
    if empty:
        raise ValueError(f"{printable(path)}: no audio from {start} s on, the file is shorter")


def _resampled(
    path: str | Path, start: int = 0, stop: float | None = None
) -> Iterator[NDArray[np.float32]]:
    """Mono 16 kHz pieces of the file from `start` to `stop` seconds of the file."""
    name = printable(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file: {name}")
    if not os.path.isfile(path):
        raise ValueError(f"{name}: not a regular file")
    try:
        # Bytes: a name that is not valid UTF-8 cannot be passed on as text.
        file_name = os.fspath(path) if os.name == "nt" else os.fsencode(path)
        with soundfile.SoundFile(file_name) as file:
            if file.format == "RAW":  # taken for telephone sound because of its ending alone
                raise ValueError(f"{name}: cannot be read as audio (it has no header)")
            if start and start * file.samplerate >= file.frames:
                return
            if start:
                file.seek(start * file.samplerate)
            frames = -1 if stop is None else round((stop - start) * file.samplerate)
            resample = _resampler(file.samplerate)
            empty = True
            for block in _decoded(file, frames):
                empty = False
                if not np.isfinite(block).all():
                    raise ValueError(f"{name}: holds NaN or infinite samples")
                yield resample(block, False)
            if empty:
                raise ValueError(f"{name}: holds no audio samples")
            yield resample(_NOTHING, True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = _reason(path, error)
        raise ValueError(f"{name}: cannot be read as audio ({reason})") from error


def _reason(path: str | Path, error: Exception) -> str:
    """Why a regular file could not be decoded."""
    if not os.path.getsize(path):
        return "the file is empty"
    reason = str(getattr(error, "error_string", None) or error)
    # So libsndfile says when its MP3 decoder finds no sound.
    return "Format not recognised." if reason.startswith("File does not exist") else reason


def _decoded(file: soundfile.SoundFile, frames: int) -> Iterator[NDArray[np.float32]]:
    """Mono blocks at the file's own rate, `frames` in all, or everything when negative."""
    size = max(1, _MAX_DECODED_VALUES // file.channels)
    while frames:
        block = file.read(size if frames < 0 else min(size, frames), np.float32, always_2d=True)
        if not len(block):
            return
        frames -= len(block) if frames > 0 else 0
        # Column by column: much faster than block.mean(1), and without BLAS threads.
        yield functools.reduce(np.add, block.T) / np.float32(file.channels)


def _resampler(rate: int) -> Callable[[_Block, bool], _Block]:
    """Function (block, is_last) -> resampled block, with state."""
    if rate == SAMPLE_RATE:
        return lambda block, last: block
    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, np.float32, "HQ").resample_chunk


def _walk(folder: Path, on_error: Callable[[OSError], None] | None) -> Iterator[Path]:
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(parent, name)
            if (
                not name.startswith(".")
                and path.suffix.lower() in AUDIO_SUFFIXES
                and path.is_file()  # not a pipe, not a dangling link
            ):
                yield path
