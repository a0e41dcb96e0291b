"""Decode files by PyAV (FFmpeg), of the extra "formats"."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .window import Unreadable, Warn, Window

# A file is reported as cut off if less than the container's duration can be decoded by more than
# this. Codecs add and remove some frames at both ends.
_TOLERANCE = 0.05  # s
_AT_ONCE = 64  # frames of a codec, each of about a thousand samples, in a block
# Containers that store the duration. For others it is estimated.
_SAY_DURATION = frozenset(("asf", "avi", "flac", "flv", "matroska", "mp4", "ogg", "tta", "wavpack"))

# Rate, number of frames of this rate before the block, samples (frames, channels).
Decoded = tuple[int, int, NDArray[np.float32]]


def by_pyav(data: Window, kind: str | None, skip: int, warn: Warn) -> Iterator[Decoded]:
    """Decode a file from its beginning.

    Args:
        data: the bytes of the file.
        kind: its format, as `sniff` names it.
        skip: frames of the first rate that are left out.
        warn: called with a message about missing or damaged parts.

    Raises:
        Unreadable, av.FFmpegError: it cannot be decoded, or is damaged before its end.
    """
    import av

    data.seek(0)
    # Without the option, a text file that names other files would be a playlist, which opens them.
    alone = {"protocol_whitelist": ""}
    with av.open(data, metadata_errors="replace", options=alone) as container:
        if not container.streams.audio:
            raise Unreadable("it has no sound")
        stream = container.streams.audio[0]
        seconds = 0.0
        for (rate, _), frames in itertools.groupby(_frames(container, stream, kind, warn), _shape):
            position = 0
            while blocks := [_float(frame) for frame in itertools.islice(frames, _AT_ONCE)]:
                block = np.concatenate(blocks)
                if position + len(block) > skip:
                    yield rate, max(position, skip), block[max(0, skip - position) :]
                position += len(block)
            seconds += position / rate
            skip = 0
        said = container.duration / av.time_base if container.duration else 0.0
        if stream.duration and stream.time_base:
            said = float(stream.duration * stream.time_base)
        if kind in _SAY_DURATION and seconds < said - _TOLERANCE:
            warn(f"is cut off: {seconds:.2f} of {said:.2f} s can be decoded")


def _frames(container: Any, stream: Any, kind: str | None, warn: Warn) -> Iterator[Any]:
    """Decoded frames.

    A packet that cannot be decoded is an error, except the last one, and in MPEG streams, in which
    other bytes may come between the frames.
    """
    import av

    failed, failures, packets, end = None, 0, 0, 0
    for packet in container.demux(stream):
        packets += packet.size > 0
        if failed is not None and packet.size and kind != "mp3":
            raise failed
        if kind == "flac" and packet.size:  # between its frames there are no other bytes
            if end and packet.pos != end:
                raise Unreadable(f"damaged: bytes {end} to {packet.pos} are no frames of FLAC")
            end = packet.pos + packet.size
        try:
            yield from packet.decode()
        except av.InvalidDataError as error:
            failed = error
            failures += 1
    if failures > 1 or (failures and kind == "mp3"):
        warn(f"is damaged: {failures} of {packets} frames cannot be decoded")
    elif failures:
        warn("is cut off in its last frame")
    # For PCM, MP4 counts samples instead of packets, as its duration does.
    if kind == "mp4" and packets < stream.frames != stream.duration:
        warn(f"is cut off: {packets} of {stream.frames} packets are there")


def _shape(frame: Any) -> tuple[int, int]:
    return frame.sample_rate, frame.layout.nb_channels


def _float(frame: Any) -> NDArray[np.float32]:
    """Samples of a frame, (frames, channels) in [-1, 1]."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32)
