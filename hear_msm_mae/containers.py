"""WAV and its like, FLAC and Ogg: what a file's bytes say beside its header."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .bytes_of import Bytes, Link, Piece, Unreadable, Warn

_PLAIN = (Link(seekable=True),)

# ---------------------------------------------------------------------------------------------
# Chunks: WAV, RF64, Wave64, AIFF, CAF; and AU, which is like one chunk
# ---------------------------------------------------------------------------------------------


class _Chunks(NamedTuple):
    """How a format writes its chunks.

    Attributes:
        start: where the first one is.
        name, length: bytes of a chunk's name and of its size.
        counts_itself: whether a chunk's size includes its name and size.
        data: name of the chunk with the samples.
        skip: bytes in it before the samples.
    """

    start: int
    name: int = 4
    length: int = 4
    order: Literal["little", "big"] = "little"
    align: int = 2
    counts_itself: bool = False
    data: bytes = b"data"
    skip: int = 0


_LAYOUTS = {
    "wav": _Chunks(12),
    "rifx": _Chunks(12, order="big"),
    "rf64": _Chunks(12),
    "w64": _Chunks(40, name=16, length=8, align=8, counts_itself=True),
    "aiff": _Chunks(12, order="big", data=b"SSND", skip=8),
    "caf": _Chunks(8, length=8, order="big", align=1, skip=4),
    "au": _Chunks(0, order="big"),
}
CHUNKED = frozenset(_LAYOUTS)


class _Data(NamedTuple):
    """The samples: where they begin, their size in bytes, where and how that is written."""

    start: int
    size: int
    field: int
    length: int
    more: int = 0  # counted in the field beside the samples


def chunk_links(kind: str, data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Compare the size that the header gives for the samples with what follows.

    Returns:
        The file as it is, or with another size in its header.
    """
    layout = _LAYOUTS[kind]
    found = _find_data(kind, layout, data)
    there = 0 if found is None else data.size - found.start
    if found is None or there <= 0 or found.size == there:
        return _PLAIN
    if found.size > there:
        # Programs that write to a pipe give one of these sizes, less a header's.
        if all(abs(found.size - size) > 2**16 for size in (2**31, 2**32, 2**63, 2**64)):
            warn(f"is cut off: it holds {there} of {found.size} bytes of samples")
        return _PLAIN
    if kind != "au" and _only_chunks(layout, data, found.start + found.size):
        return _PLAIN
    said = f"says that it holds {found.size} bytes of samples; "
    # No size was written when a recorder lost power; 4 bytes hold it modulo 2**32.
    if found.size and (found.length == 8 or (there - found.size) % 2**32):
        warn(f"{said}{there - found.size} bytes follow, which are not read")
        return _PLAIN
    warn(f"{said}it is read to its end, {there} bytes of samples")
    return (_with_size(kind, layout, data, found, there),)


def _find_data(kind: str, layout: _Chunks, data: Bytes) -> _Data | None:
    """None: there is no chunk with samples."""
    if kind == "au":
        return _Data(_number(layout, data.at(4, 4)), _number(layout, data.at(8, 4)), 8, 4)
    position = layout.start
    head = layout.name + layout.length
    wide = 0  # where RF64 writes the size, which needs 8 bytes
    while position + head <= data.size:
        name, size = _chunk(layout, data, position)
        begin = position + head
        if name == b"ds64":
            wide = begin + 8
        if name[:4] == layout.data:
            if wide and size == 2**32 - 1:
                return _Data(begin, _number(layout, data.at(wide, 8)), wide, 8)
            more = layout.skip + (head if layout.counts_itself else 0)
            field = begin - layout.length
            return _Data(begin + layout.skip, max(0, size - more), field, layout.length, more)
        position = _next_chunk(layout, position, size)
    return None


def _number(layout: _Chunks, field: bytes) -> int:
    return int.from_bytes(field, layout.order)


def _chunk(layout: _Chunks, data: Bytes, position: int) -> tuple[bytes, int]:
    """Name and size of a chunk."""
    head = data.at(position, layout.name + layout.length)
    return head[: layout.name], _number(layout, head[layout.name :])


def _next_chunk(layout: _Chunks, position: int, size: int) -> int:
    head = layout.name + layout.length
    whole = max(size, head) if layout.counts_itself else head + size
    return position + whole + -whole % layout.align


def _only_chunks(layout: _Chunks, data: Bytes, end: int) -> bool:
    """Whether nothing but chunks follows the samples: tags, cue points."""
    position = end + -(end - layout.start) % layout.align
    while data.size - position >= layout.name + layout.length:
        name, size = _chunk(layout, data, position)
        position = _next_chunk(layout, position, size)
        if not all(32 <= byte < 127 for byte in name[:4]) or position > data.size + layout.align:
            return False
    return True


def _with_size(kind: str, layout: _Chunks, data: Bytes, found: _Data, size: int) -> Link:
    """The file with another size of its samples, and with one of the file that fits."""

    def written(value: int, length: int) -> bytes:
        return min(value, 256**length - 1).to_bytes(length, layout.order)

    outer: tuple[Piece, ...] = ((0, found.field),)
    if kind == "rf64":
        outer = ((0, 20), written(data.size - 8, 8), (28, found.field))
    elif kind in ("wav", "rifx", "aiff"):
        outer = ((0, 4), written(data.size - 8, 4), (8, found.field))
    field = written(found.more + size, found.length)
    return Link((*outer, field, (found.field + found.length, data.size)), seekable=True)


# ---------------------------------------------------------------------------------------------
# FLAC
# ---------------------------------------------------------------------------------------------
_BLOCKS = {1: 192, **{2 + n: 576 << n for n in range(4)}, **{8 + n: 256 << n for n in range(8)}}
_DEPTHS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}


class _StreamInfo(NamedTuple):
    """What the first block of metadata says."""

    block: int  # samples per channel in each frame, but the last
    channels: int
    depth: int  # bits per sample
    total: int  # samples per channel; 0: not known


def flac_links(data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Compare the number of samples in the header with the last frame.

    Returns:
        The file as it is, or streams with another number of samples in their header; more than
        one where files were put one behind the other.
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
    if data.at(stop - 128, 3) == b"TAG":  # ID3v1
        stop -= 128
    found = _last_frame(data, start, stop, info)
    if found is None or found[1] + found[2] == total:
        return as_it_is
    position, first, size = found
    complete = not _crc(data.at(position, stop - position), 0x8005, 16)
    frames = first + size if complete else first
    if not complete or total > frames:
        warn(f"is cut off: {frames} samples are read" + (f" of {total}" if total else ""))
    elif total:
        warn(f"says that it holds {total} samples; {frames} are read, to its end")
    if not frames:
        return as_it_is
    count = (head[21] >> 4 << 36 | frames).to_bytes(5, "big")
    return Link(((start, start + 21), count, (start + 26, stop)), frames, seekable=True)


def _last_frame(
    data: Bytes, start: int, stop: int, info: _StreamInfo
) -> tuple[int, int, int] | None:
    """Where the last frame begins: its byte, its first sample, and how many it has."""
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
    """First sample and number of samples by a frame's header; None: it is not one."""
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
    """Check sum; 0 for bytes that end in their right check sum."""
    value, top = 0, 1 << bits
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value <<= 1
            if value & top:
                value ^= top | polynomial
    return value


# ---------------------------------------------------------------------------------------------
# Ogg
# ---------------------------------------------------------------------------------------------
_SNDFILE_CODECS = (b"\x01vorbis", b"OpusHead")


def ogg_links(data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Find the streams that a file holds one behind the other.

    Raises:
        Unreadable: bytes in the middle are no pages of Ogg, or pages are missing.
    """
    starts: list[int] = []
    codecs: list[list[bytes]] = []  # of each link; more than one beside each other in videos
    numbers: dict[bytes, int] = {}  # by stream: of its last page with samples
    flags = 2
    position = 0
    while position < data.size:
        head = data.at(position, 27)
        table = data.at(position + 27, head[26]) if len(head) == 27 else b""
        body = position + 27 + len(table)
        stop = body + sum(table)
        if head[:4] != b"OggS":
            following = data.find(b"OggS", position)
            if following < data.size or not starts:
                raise Unreadable(f"damaged: bytes {position} to {following} are no pages of Ogg")
            break  # something else at the end, for example a tag
        if len(head) < 27 or stop > data.size:
            flags = 0
            break
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
            codecs[-1].append(data.at(body, 8))
        flags, position = head[5], stop
    if not flags & 4:
        warn(f"is cut off: its last page, before byte {position}, does not end the stream")
    stops = [*starts[1:], data.size]
    alone = len(starts) == 1
    return tuple(
        Link(
            None if alone else ((start, stop),),
            sndfile=len(names) == 1 and names[0].startswith(_SNDFILE_CODECS),
        )
        for start, stop, names in zip(starts, stops, codecs, strict=True)
    )
