"""Decode files to samples at their stored rate.

libsndfile decodes most formats. In MP3 and FLAC files it stops at a wrong length in the header, or
at damaged bytes; PyAV then decodes the file once more, and what libsndfile left out is added. PyAV
also decodes the formats that libsndfile does not read.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..extras import need
from ..files import printable
from .chunks import CHUNKED, chunk_link, warn_of_cut_asf
from .ogg import ogg_links
from .pyav import Decoded, by_pyav
from .recognise import PYAV_FORMATS, has_pyav, sniff
from .window import Link, Unreadable, Window

_log = logging.getLogger(__name__)

# Decoded values (frames x channels) held at once: 4 Mi float32 values, 16 MiB.
_MAX_DECODED_VALUES = 2**22
_MAX_DECODED_SECONDS = 256  # at once; resampling makes a low rate's block much longer
_UNKNOWN = 2**62  # frames, as libsndfile says when it does not know
_MOST_MP3_TAIL = 512  # bytes of an unknown tag behind the frames; more are decoded by PyAV


class Block(NamedTuple):
    """Decoded samples.

    Attributes:
        part: number of the part of the file; parts may have different rates.
        rate: samples per second and channel.
        first: frames of the part before this block.
        samples: (frames, channels).
    """

    part: int
    rate: int
    first: int
    samples: NDArray[np.float32]


def decode(path: str | Path, start: int = 0, stop: float | None = None) -> Iterator[Block]:
    """Decode a file.

    Args:
        path: the file.
        start: second from which on samples are needed. Formats that can seek begin there, others
            at 0.
        stop: second up to which samples are needed. There may be more.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be decoded; the message names the file and the reason.
    """
    name = printable(path)
    if not os.path.exists(path):
        if Path(path).is_symlink():
            raise FileNotFoundError(f"{name}: is a link to a file that does not exist")
        raise FileNotFoundError(f"no such file: {name}")
    if not os.path.isfile(path):
        raise ValueError(f"{name}: not a regular file")
    with _errors_named(path), Path(path).open("rb") as file:
        state = os.fstat(file.fileno())
        if not state.st_size:
            raise Unreadable("the file is empty")
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        kind, links = _inspect(os.fspath(path), identity)
        for part, link in enumerate(links):
            span = (start, stop) if len(links) == 1 else (0, None)
            data = Window(file, link, stepwise=kind in ("flac", "mp3"))
            for block in _decode_link(path, data, kind, link, *span):
                yield Block(part, *block)


@functools.lru_cache(maxsize=256)
def _inspect(path: str, identity: tuple[int, ...]) -> tuple[str | None, tuple[Link, ...]]:
    """The format of a file, and its parts.

    The result is cached by `identity` (path, size and modification time), so a file that is read
    in many parts is inspected once.
    """
    warn = functools.partial(_warn, path)
    # Bytes before the first frame of an MP3 file hide the format.
    kind = sniff(path) or ("mp3" if path.lower().endswith(".mp3") else None)
    with Path(path).open("rb") as file:
        data = Window(file)
        if kind == "ogg":
            return kind, ogg_links(data, warn)
        if kind in CHUNKED:
            return kind, (chunk_link(kind, data, warn),)
        if kind == "asf":
            warn_of_cut_asf(data, warn)
        if kind in ("mp3", "flac"):
            return kind, (Link(data.after_id3(), data.before_tags()),)
    return kind, (Link(sndfile=kind not in PYAV_FORMATS),)


def _decode_link(
    path: str | Path, data: Window, kind: str | None, link: Link, start: int, stop: float | None
) -> Iterator[Decoded]:
    """Blocks of a link: those that libsndfile decodes, then those that only PyAV does."""
    done, error = 0, None
    repairable = kind in ("flac", "mp3")
    # A path is read faster than a file object, which can be a part of the file, can have another
    # header, and shows where libsndfile stops. soundfile opens no path that ends in .raw.
    source = path if link == Link() and Path(path).suffix.lower() != ".raw" else data
    sound = _open_sndfile(source, kind) if link.sndfile else None
    counted = sound is None or not sound.subtype.startswith("MPEG") or _counts_frames(data)
    # libsndfile estimates the length of MPEG streams that do not count their frames.
    if sound is not None and (counted or not has_pyav()):
        with sound:
            first = 0 if kind in ("mp3", "ogg") else start * sound.samplerate
            end = None if stop is None else round(stop * sound.samplerate)
            done, error = yield from _by_sndfile(path, sound, first, end)
        left = data.size - data.tell() if repairable else 0
        few = _MOST_MP3_TAIL if kind == "mp3" else 0
        if (end is not None and done >= end) or (error is None and left <= few):
            return
        if error is not None and not (repairable and has_pyav()):
            raise error
        if not has_pyav():
            what = f"{left} bytes at its end need PyAV; run: pip install 'hear_msm_mae[formats]'"
            if not counted:
                raise Unreadable(what)
            _warn(path, what)
            return
        if error is not None:
            _warn(path, "is cut off or damaged; what can be decoded is read")
    need("av", "formats", f"{printable(path)}: files in this format ({kind})")
    more = done > 0 and error is None
    for block in by_pyav(data, kind, done, functools.partial(_warn, path)):
        if more:
            _warn(path, f"its header says {done} samples, but more follow; all are read")
            more = False
        yield block


# ---------------------------------------------------------------------------------------------
# libsndfile
# ---------------------------------------------------------------------------------------------
class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read sequentially.

    soundfile seeks after each read, which fails for an unknown length and hides missing parts.
    """

    def seekable(self) -> bool:
        return False


def _open_sndfile(source: str | Path | Window, kind: str | None) -> _Sequential | None:
    """The file opened by libsndfile; None if PyAV has to read it."""
    if isinstance(source, (str, Path)) and os.name != "nt":
        opened: Any = os.fsencode(source)  # it may not be valid UTF-8
    else:
        opened = source
    try:
        sound = _Sequential(opened)
    except (soundfile.SoundFileError, RuntimeError):
        # PyAV opens many files that are not audio, so it gets only files of known formats.
        if kind is None or not has_pyav():
            raise
        return None
    if sound.format == "RAW":  # libsndfile guessed this from the ending alone
        raise Unreadable("it has no header")
    return sound


def _counts_frames(data: Window) -> bool:
    """Whether the first frame of an MPEG stream is a tag with the number of frames."""
    position = data.tell()
    head = data.at(0, 200)
    data.seek(position)
    return b"Xing" in head or b"Info" in head


def _by_sndfile(
    path: str | Path, sound: soundfile.SoundFile, start: int, stop: int | None
) -> Generator[Decoded, None, tuple[int, Exception | None]]:
    """Blocks, and then the number of the frame that reading stopped at, and why if it failed."""
    declared, rate = sound.frames, sound.samplerate
    size = min(_MAX_DECODED_VALUES // max(1, sound.channels), _MAX_DECODED_SECONDS * rate)
    size = max(1, size)
    position = start
    try:
        if 0 < start < declared:
            # Some codecs cannot seek, such as GSM and G.721.
            position = sound.seek(start) if soundfile.SoundFile.seekable(sound) else 0
        # The FLAC decoder fails at bytes after the last frame, so no more is asked for.
        end = declared if stop is None else min(stop, declared)
        while position < end:
            block = sound.read(min(size, end - position), np.float32, always_2d=True)
            if not len(block):
                if declared < _UNKNOWN:
                    seconds = f"{position / rate:.2f} of {declared / rate:.2f} s"
                    _warn(path, f"is cut off: {seconds} can be decoded")
                break
            yield rate, position, block
            position += len(block)
    except (soundfile.SoundFileError, RuntimeError) as error:
        return position, error
    return position, None


# ---------------------------------------------------------------------------------------------
# Errors and warnings
# ---------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1024)
def _warn(path: str | Path, what: str) -> None:
    """Warn once of a file, even if it is read in many parts."""
    _log.warning("%s: %s", printable(path), what)


@contextmanager
def _errors_named(path: str | Path) -> Iterator[None]:
    """Turn errors of the decoders into ValueErrors that name the file."""
    try:
        yield
    except Exception as error:
        ours = isinstance(error, (soundfile.SoundFileError, RuntimeError, Unreadable))
        if not ours and type(error).__module__.split(".")[0] != "av":
            raise
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        reason = str(reason)
        # libsndfile says of text named .mp3 that it does not exist.
        if reason.startswith(("File does not exist", "Format not recognised", "Invalid data")):
            reason = "its format is unknown, or it is damaged"
        raise ValueError(f"{printable(path)}: cannot be read as audio ({reason})") from error
