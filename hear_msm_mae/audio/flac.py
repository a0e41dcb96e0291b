"""FLAC: compare the number of samples in the header with the last frame."""

from __future__ import annotations

import functools
from typing import NamedTuple

from .bytes_of import Bytes, Link, Warn

_PLAIN = (Link(seekable=True),)
_BLOCKS = {1: 192, **{2 + n: 576 << n for n in range(4)}, **{8 + n: 256 << n for n in range(8)}}
_DEPTHS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}


class _StreamInfo(NamedTuple):
    """The values in the first block of metadata."""

    block: int  # samples per channel in each frame, but the last
    channels: int
    depth: int  # bits per sample
    total: int  # samples per channel; 0: not known


def flac_links(data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Compare the number of samples in the header with the last frame.

    Returns:
        The file unchanged, or streams with a corrected number of samples in their header. There
        are several if files were concatenated.
    """
    starts = []
    position = data.find(b"fLaC", data.after_id3())
    while position < data.size:
        if data.at(position, 8)[4:] in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            starts.append(position)
        position = data.find(b"fLaC", position + 4)
    stops = [*starts[1:], data.size]
    links = [_flac_link(data, *ends, warn) for ends in zip(starts, stops, strict=bool(starts))]
    if len(links) > 1:
        return tuple(link._replace(seekable=False) for link in links)
    return tuple(links) if links and links[0].frames else _PLAIN


def _flac_link(data: Bytes, start: int, stop: int, warn: Warn) -> Link:
    as_it_is = Link(((start, stop),), seekable=True)
    head = data.at(start, 26)
    if len(head) < 26:
        return as_it_is
    depth = (head[20] & 1) << 4 | head[21] >> 4
    total = int.from_bytes(head[21:26], "big") & 2**36 - 1
    info = _StreamInfo(
        int.from_bytes(head[10:12], "big"), (head[20] >> 1 & 7) + 1, depth + 1, total
    )
    stop = _before_tags(data, stop)
    found = _last_frame(data, start, stop, info)
    if found is None:
        return as_it_is
    position, first, size = found
    complete = not _crc(data.at(position, stop - position), 0x8005, 16)
    frames = first + size if complete else first
    if frames == total:
        return as_it_is
    if not complete or total > frames:
        warn(f"is cut off: {frames} samples are read" + (f" of {total}" if total else ""))
    elif total:
        warn(f"has {frames} samples, but its header says {total}; all are read")
    if not frames:
        return as_it_is
    count = (head[21] >> 4 << 36 | frames).to_bytes(5, "big")
    return Link(((start, start + 21), count, (start + 26, stop)), frames, seekable=True)


def _before_tags(data: Bytes, stop: int) -> int:
    """Start of the ID3v1 and APE tags at the end of a file."""
    if stop > 128 and data.at(stop - 128, 3) == b"TAG":
        stop -= 128
    footer = data.at(max(0, stop - 32), 32)
    if footer[:8] == b"APETAGEX":
        header = 32 if footer[23] & 0x80 else 0
        stop -= header + int.from_bytes(footer[12:16], "little")
    return max(0, stop)


def _last_frame(
    data: Bytes, start: int, stop: int, info: _StreamInfo
) -> tuple[int, int, int] | None:
    """Byte, first sample and number of samples of the last frame."""
    for window in (2**17, 2**23):  # the longest frames have some megabytes
        begin = max(start, stop - window)
        chunk = data.at(begin, stop - begin)
        at = chunk.rfind(b"\xff")
        while at >= 0:
            frame = _flac_frame(chunk[at : at + 16], info)
            if frame is not None:
                return begin + at, *frame
            at = chunk.rfind(b"\xff", 0, at)
    return None


def _flac_frame(head: bytes, info: _StreamInfo) -> tuple[int, int] | None:
    """First sample and number of samples from a frame's header; None if it is not a header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8:
        return None
    block, rate, channels, depth = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] & 15
    if (
        block == 0
        or rate == 15
        or info.channels != (channels + 1 if channels < 8 else 2)
        or channels > 10
        or (depth and _DEPTHS.get(depth >> 1) != info.depth)
    ):
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # as in UTF-8: bytes of the number
    if ones in (1, 8):
        return None
    end = 4 + max(1, ones)
    number = head[4] & (0x7F >> ones)
    for byte in head[5:end]:
        number = number << 6 | byte & 0x3F
    size = _BLOCKS.get(block, 0)
    if not size:
        size = int.from_bytes(head[end : end + block - 5], "big") + 1
        end += block - 5
    end += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if end >= len(head) or _crc(head[: end + 1], 0x07, 8):
        return None
    return number if head[1] & 1 else number * info.block, size


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    """Check sum of bytes; it is 0 if they end in their correct check sum."""
    table, value, mask = _crc_table(polynomial, bits), 0, (1 << bits) - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> bits - 8 ^ byte]
    return value


@functools.cache
def _crc_table(polynomial: int, bits: int) -> list[int]:
    table = [byte << bits - 8 for byte in range(256)]
    for _ in range(8):
        table = [v << 1 ^ (polynomial | 1 << bits if v >> bits - 1 else 0) for v in table]
    return table
