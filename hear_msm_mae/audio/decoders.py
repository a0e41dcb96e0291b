"""Decode files to samples at their stored rate: libsndfile most formats, PyAV the others."""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..extras import need
from ..files import printable
from .bytes_of import Bytes, Link, Unreadable, View
from .chunks import CHUNKED, asf_links, chunk_links
from .flac import flac_links
from .mpeg import mpeg_links
from .ogg import ogg_links
from .recognise import PYAV_FORMATS, has_pyav, sniff

if TYPE_CHECKING:
    import av

_log = logging.getLogger(__name__)

# Decoded values (frames x channels) held at once: 4 Mi float32 values, 16 MiB.
_MAX_DECODED_VALUES = 2**22
# A file is reported as cut off if PyAV decodes less than the container's duration by more than
# this. Codecs add and remove some frames at both ends.
_PYAV_TOLERANCE = 0.05  # s
_PYAV_BLOCK = 2**16  # frames
# Containers that store the duration. For others it is estimated.
_SAY_DURATION = frozenset(("asf", "matroska", "mp4", "ogg", "wavpack"))
_UNKNOWN = 2**62  # frames, as libsndfile says when it does not know

Block = NDArray[np.float32]  # (frames, channels)


class Part(NamedTuple):
    """A part of a file with one sample rate and one number of channels.

    Attributes:
        rate: samples per second and channel.
        channels: number of channels.
        seekable: whether `read` can begin at any frame, not only at 0.
        read: function (first frame, number of frames or None for all) that yields blocks of shape
            (frames, channels).
    """

    rate: int
    channels: int
    seekable: bool
    read: Callable[[int, int | None], Iterator[Block]]


def open_parts(path: str | Path) -> Iterator[Part]:
    """The parts of a file, one after the other; most files have one part.

    Read a part completely before you take the next one.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be decoded; the message names the file and the reason.
    """
    name = printable(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file: {name}")
    if not os.path.isfile(path):
        raise ValueError(f"{name}: not a regular file")
    with _errors_named(path), Path(path).open("rb") as file:
        state = os.fstat(file.fileno())
        if not state.st_size:
            raise Unreadable("the file is empty")
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        kind, links = _inspect(os.fspath(path), identity)
        for link in links:
            yield from _open_link(path, file, kind, link)


@functools.lru_cache(maxsize=256)
def _inspect(path: str, identity: tuple[int, ...]) -> tuple[str | None, tuple[Link, ...]]:
    """The format of a file, and its parts.

    The result is cached by `identity` (path, size and modification time), so a file that is read
    in many parts is inspected once, and its warnings appear once.
    """

    def warn(what: str) -> None:
        _log.warning("%s: %s", printable(path), what)

    kind = sniff(path)
    by_ending = kind is None and path.lower().endswith(".mp3")
    if by_ending:  # other bytes may come before its first frame
        kind = "mp3"
    with Path(path).open("rb") as file:
        data = Bytes(file)
        if kind == "mp3":
            links = mpeg_links(data, warn)
        elif kind == "flac":
            links = flac_links(data, warn)
        elif kind == "ogg":
            links = ogg_links(data, warn)
        elif kind in CHUNKED:
            links = chunk_links(kind, data, warn)
        elif kind == "asf":
            links = asf_links(data, warn)
        else:
            links = (Link(seekable=True, sndfile=kind not in PYAV_FORMATS),)
    if not links and kind == "mp3" and by_ending:
        kind = None
    return kind, links or (Link(sndfile=kind != "mp3"),)


def _open_link(path: str | Path, file: BinaryIO, kind: str | None, link: Link) -> Iterator[Part]:
    view = View(file, link.pieces or ((0, Path(path).stat().st_size),))
    try:
        if not link.sndfile:
            raise soundfile.SoundFileRuntimeError(f"libsndfile does not read {kind}")
        sound = _Sequential(view if link.pieces else _file_name(path))
    except (soundfile.SoundFileError, RuntimeError):
        # PyAV opens many files that are not audio, so it gets only files of known formats.
        if kind is None or (link.sndfile and not has_pyav()):
            raise
        sound = None
    if sound is not None:
        with sound:
            if sound.format == "RAW":  # libsndfile guessed this from the ending alone
                raise Unreadable("it has no header")
            counted = kind == "mp3" or not sound.subtype.startswith("MPEG")
            if counted and sound.frames >= link.frames:
                read = functools.partial(_read_sndfile, path, sound, link)
                yield Part(sound.samplerate, sound.channels, link.seekable, read)
                return
    need("av", "formats", f"{printable(path)}: files in this format ({kind})")
    yield from _open_pyav(path, view, kind)


# ---------------------------------------------------------------------------------------------
# libsndfile
# ---------------------------------------------------------------------------------------------
class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read sequentially.

    soundfile seeks after each read, which fails for an unknown length and hides missing parts.
    """

    def seekable(self) -> bool:
        return False


def _file_name(path: str | Path) -> str | bytes:
    # The path is passed as bytes, because it may not be valid UTF-8.
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def _read_sndfile(
    path: str | Path, sound: soundfile.SoundFile, link: Link, start: int, count: int | None
) -> Iterator[Block]:
    declared, rate = sound.frames, sound.samplerate
    with _errors_named(path, f"before {start / rate:.2f} s"):
        position = sound.seek(start) if 0 < start < declared else start
    # Reading stops at the declared length: the FLAC decoder fails at bytes after the last frame.
    stop = declared if count is None else min(start + count, declared)
    size = max(1, _MAX_DECODED_VALUES // sound.channels)
    while position < stop:
        with _errors_named(path, f"after {position / rate:.2f} s"):
            block = sound.read(min(size, stop - position), np.float32, always_2d=True)
            if not len(block) and position < (link.frames or declared) < _UNKNOWN:
                what = f"{position / rate:.2f} of {declared / rate:.2f} s can be decoded"
                if not link.seekable:
                    raise Unreadable(f"damaged: {what}")
                _log.warning("%s: is cut off: %s", printable(path), what)
        if not len(block):
            return
        position += len(block)
        yield block


# ---------------------------------------------------------------------------------------------
# PyAV
# ---------------------------------------------------------------------------------------------
def _open_pyav(path: str | Path, source: View, kind: str | None) -> Iterator[Part]:
    import av

    source.seek(0)
    with _errors_named(path), av.open(source, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise Unreadable("it has no sound")
        stream = container.streams.audio[0]
        seconds = [0.0]
        frames = _frames(path, container, stream)
        for (rate, channels), group in itertools.groupby(frames, _shape):
            read = functools.partial(_read_pyav, path, group, rate, seconds)
            yield Part(rate, channels, False, read)
        said = container.duration / av.time_base if container.duration else 0.0
        if stream.duration and stream.time_base:
            said = float(stream.duration * stream.time_base)
        if kind in _SAY_DURATION and seconds[0] < said - _PYAV_TOLERANCE:
            _log.warning(
                "%s: %.2f s can be decoded where it says %.2f s", printable(path), seconds[0], said
            )


def _shape(frame: av.AudioFrame) -> tuple[int, int]:
    return frame.sample_rate, frame.layout.nb_channels


def _frames(path: str | Path, container: Any, stream: Any) -> Iterator[av.AudioFrame]:
    """Decoded frames. A packet that cannot be decoded is an error, except the last one."""
    import av

    failed = None
    packets = 0
    for packet in container.demux(stream):
        packets += packet.size > 0
        if failed is not None and packet.size:
            raise failed
        try:
            yield from packet.decode()
        except av.InvalidDataError as error:
            failed = error
    if failed is not None:
        _log.warning("%s: is cut off in its last frame", printable(path))
    if packets < stream.frames:  # 0 if the container does not count them
        what = f"{packets} of {stream.frames} packets are there"
        _log.warning("%s: is cut off: %s", printable(path), what)


def _read_pyav(
    path: str | Path,
    frames: Iterator[av.AudioFrame],
    rate: int,
    seconds: list[float],
    start: int,
    count: int | None,
) -> Iterator[Block]:
    assert not start
    position = 0
    waiting: list[Block] = []
    while count is None or position < count:
        with _errors_named(path, f"after {seconds[0]:.2f} s"):
            frame = next(frames, None)
        if frame is None:
            break
        block = _float(frame)
        seconds[0] += len(block) / rate
        position += len(block)
        waiting.append(block)
        # A codec's frame has about a thousand samples, and such small blocks take long to resample.
        if sum(map(len, waiting)) >= _PYAV_BLOCK:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _float(frame: av.AudioFrame) -> Block:
    """Samples of a frame, (frames, channels) in [-1, 1]."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32)


# ---------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------
@contextmanager
def _errors_named(path: str | Path, where: str = "") -> Iterator[None]:
    """Turn errors of the decoders into ValueErrors that name the file."""
    try:
        yield
    except (soundfile.SoundFileError, RuntimeError, Unreadable) as error:
        raise _unreadable(path, error, where) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] != "av":
            raise
        raise _unreadable(path, error, where) from error


def _unreadable(path: str | Path, error: Exception, where: str) -> ValueError:
    reason = str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error)
    if reason.startswith("File does not exist"):  # of MP3 files without sound
        reason = "Format not recognised."
    reason = f"{where}: {reason}" if where else reason
    return ValueError(f"{printable(path)}: cannot be read as audio ({reason})")
