"""Ogg: find the consecutive streams of a file, and check its pages."""

from __future__ import annotations

import zlib

from .window import Link, Unreadable, Warn, Window

# Reverses the bits of a byte. Ogg's check sum is zlib's with the bits in reverse order.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SNDFILE_CODECS = (b"\x01vorbis", b"OpusHead")


def ogg_links(data: Window, warn: Warn) -> tuple[Link, ...]:
    """Find the consecutive streams of a file.

    Raises:
        Unreadable: a page before the end is damaged or missing.
    """
    starts: list[int] = []
    codecs: list[list[bytes]] = []  # of each link; more than one beside each other in videos
    numbers: dict[bytes, int] = {}  # by stream: of its last page with samples
    flags = 0  # of the page before: 2 begins a stream, 4 ends it
    position = 0
    while position < data.size:
        head = data.at(position, 27)
        table = data.at(position + 27, head[26]) if len(head) == 27 else b""
        stop = position + 27 + len(table) + sum(table)
        page = data.at(position, stop - position)
        if head[:4] != b"OggS" or stop > data.size or not _is_intact(page):
            following = data.find(b"OggS", position + 1)
            if following < data.size or not starts:
                raise Unreadable(
                    f"damaged: bytes {position} to {following} are no intact pages of Ogg"
                )
            break  # the last page is cut off, or something else is at the end, e.g. a tag
        begins, stream = head[5] & 2, head[14:18]
        number = int.from_bytes(head[18:22], "little")
        if not begins and number > numbers.get(stream, number) + 1:
            raise Unreadable(f"damaged: pages are missing before byte {position}")
        if any(head[6:14]):  # behind the headers, recordings of broadcasts jump
            numbers[stream] = number
        if begins:
            numbers.pop(stream, None)
            if not (starts and flags & 2):
                starts.append(position)
                codecs.append([])
            codecs[-1].append(page[27 + len(table) :][:8])
        elif not starts:
            raise Unreadable("damaged: its beginning is missing")
        flags, position = head[5], stop
    if not flags & 4:
        warn(f"is cut off: the last complete page, at byte {position}, does not end the stream")
    return tuple(
        Link(start, stop, sndfile=sum(name.startswith(_SNDFILE_CODECS) for name in names) == 1)
        for start, stop, names in zip(starts, [*starts[1:], data.size], codecs, strict=True)
    )


def _is_intact(page: bytes) -> bool:
    """Whether the check sum of a page is correct."""
    without = page[:22] + bytes(4) + page[26:]
    check = zlib.crc32(without.translate(_REVERSED), 2**32 - 1) ^ 2**32 - 1
    return check.to_bytes(4, "big").translate(_REVERSED) == page[22:26]
