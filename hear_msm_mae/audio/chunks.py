"""Formats made of chunks (WAV, AIFF, ASF and others): correct wrong sizes in their headers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .bytes_of import Bytes, Link, Piece, Warn

_PLAIN = (Link(seekable=True),)


class _Chunks(NamedTuple):
    """The layout of a format's chunks.

    Attributes:
        start: position of the first chunk.
        name, length: number of bytes of a chunk's name, and of its size.
        counts_itself: whether the size of a chunk includes its name and size.
        data: name of the chunk with the samples.
        skip: bytes before the samples in that chunk.
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
_MOST_CHUNKS = 10_000  # before the samples; zeros would be empty chunks without end
CHUNKED = frozenset(_LAYOUTS)


class _Data(NamedTuple):
    """The samples: their position and size in bytes, and place and format of the size field."""

    start: int
    size: int
    field: int
    length: int
    more: int = 0  # counted in the field beside the samples


def chunk_links(kind: str, data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Compare the size of the samples in the header with the file.

    Returns:
        The file unchanged, or with a corrected size in its header.
    """
    layout = _LAYOUTS[kind]
    found = _find_data(kind, layout, data)
    there = 0 if found is None else data.size - found.start
    if found is None or there <= 0 or found.size == there:
        return _PLAIN
    # Programs that write to a pipe write one of these sizes, minus that of a header.
    piped = any(abs(found.size - size) < 2**16 for size in (2**31, 2**32, 2**63, 2**64))
    if found.size > there:
        if not piped:
            warn(f"is cut off: it holds {there} of {found.size} bytes of samples")
        return _PLAIN
    if kind != "au" and _only_chunks(layout, data, found.start + found.size):
        return _PLAIN
    said = f"says that it holds {found.size} bytes of samples; "
    wrapped = found.length == 4 and (there - found.size) % 2**32 == 0
    # A recorder that lost power leaves the size 0.
    if found.size and not piped and not wrapped:
        warn(f"{said}{there - found.size} bytes follow, which are not read")
        return _PLAIN
    warn(f"{said}it is read to its end, {there} bytes of samples")
    return (_with_size(kind, layout, data, found, there),)


def _find_data(kind: str, layout: _Chunks, data: Bytes) -> _Data | None:
    """The chunk with the samples, or None if there is none."""
    if kind == "au":
        return _Data(_number(layout, data.at(4, 4)), _number(layout, data.at(8, 4)), 8, 4)
    position = layout.start
    head = layout.name + layout.length
    wide = 0  # where RF64 writes the size, which needs 8 bytes
    for _ in range(_MOST_CHUNKS):
        if position + head > data.size:
            break
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
    """Whether only other chunks follow the samples, such as tags or cue points."""
    position = end + -(end - layout.start) % layout.align
    while data.size - position >= layout.name + layout.length:
        name, size = _chunk(layout, data, position)
        position = _next_chunk(layout, position, size)
        if not all(32 <= byte < 127 for byte in name[:4]) or position > data.size + layout.align:
            return False
    return True


def _with_size(kind: str, layout: _Chunks, data: Bytes, found: _Data, size: int) -> Link:
    """The file with a new size of its samples, and a size of the file that fits."""

    def written(value: int, length: int) -> bytes:
        return min(value, 256**length - 1).to_bytes(length, layout.order)

    outer: tuple[Piece, ...] = ((0, found.field),)
    if kind == "rf64":
        outer = ((0, 20), written(data.size - 8, 8), (28, found.field))
    elif kind == "wav" and size >= 2**32:
        # RF64 is WAV with an additional chunk for sizes that need 8 bytes.
        sizes = written(data.size + 28, 8) + written(size, 8) + bytes(12)
        ds64 = b"RF64\xff\xff\xff\xffWAVEds64" + written(len(sizes), 4) + sizes
        outer = (ds64, (12, found.field))
    elif kind in ("wav", "rifx", "aiff"):
        outer = ((0, 4), written(data.size - 8, 4), (8, found.field))
    field = written(found.more + size, found.length)
    return Link((*outer, field, (found.field + found.length, data.size)), seekable=True)


_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def asf_links(data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Warn if the header gives another size of the file."""
    at = data.at(0, 2**16).find(_FILE_PROPERTIES)
    size = int.from_bytes(data.at(at + 40, 8), "little") if at > 0 else 0
    if size > data.size:
        warn(f"is cut off: {data.size} of {size} bytes are there")
    return (Link(sndfile=False),)
