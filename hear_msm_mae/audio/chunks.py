"""Formats made of chunks (WAV, AIFF, ASF and others): compare sizes in headers with the file."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .window import Link, Warn, Window


class _Layout(NamedTuple):
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

    def chunk(self, data: Window, position: int) -> tuple[bytes, int, int]:
        """Name and size of the chunk at a position, and the position of the next one."""
        head = data.at(position, self.name + self.length)
        size = int.from_bytes(head[self.name :], self.order)
        whole = max(size, len(head)) if self.counts_itself else len(head) + size
        return head[: self.name], size, position + whole + -whole % self.align


_LAYOUTS = {
    "wav": _Layout(12),
    "rifx": _Layout(12, order="big"),
    "rf64": _Layout(12),
    "w64": _Layout(40, name=16, length=8, align=8, counts_itself=True),
    "aiff": _Layout(12, order="big", data=b"SSND", skip=8),
    "svx": _Layout(12, order="big", data=b"BODY"),
    "caf": _Layout(8, length=8, order="big", align=1, skip=4),
    "au": _Layout(0, order="big"),
}
CHUNKED = frozenset(_LAYOUTS)
_MOST_CHUNKS = 10_000  # before the samples; zeros would be empty chunks without end


class _Samples(NamedTuple):
    """Position and size of the samples, and the position and length of the size in the header."""

    start: int
    size: int
    field: int
    length: int
    more: int = 0  # counted in the field beside the samples


def chunk_link(kind: str, data: Window, warn: Warn) -> Link:
    """Compare the size of the samples in the header with the file.

    Returns:
        The file unchanged, or with a corrected size in its header.
    """
    layout = _LAYOUTS[kind]
    if data.at(0, 4) == b"dns.":  # AU in the other order of bytes
        layout = layout._replace(order="little")
    found = _find_samples(kind, layout, data)
    there = 0 if found is None else data.size - found.start
    if found is None or there <= 0 or found.size == there:
        return Link()
    # Programs that write to a pipe write one of these sizes, minus that of a header.
    piped = any(abs(found.size - size) < 2**16 for size in (2**31, 2**32, 2**63, 2**64))
    if found.size > there:
        if not piped:
            warn(f"is cut off: it holds {there} of {found.size} bytes of samples")
        return Link()
    end = found.start + found.size
    if kind != "au" and _only_chunks(layout, data, end):
        return Link()
    said = f"says that it holds {found.size} bytes of samples; "
    wrapped = found.length == 4 and (there - found.size) % 2**32 == 0
    # A recorder that lost power leaves the size 0.
    if found.size and not piped and not wrapped:
        warn(f"{said}{there - found.size} bytes follow, which are not read")
        return Link(stop=end)
    warn(f"{said}it is read to its end, {there} bytes of samples")
    size = min(found.more + there, 256**found.length - 1).to_bytes(found.length, layout.order)
    head = data.at(0, found.field) + size
    if kind == "wav" and there >= 2**32:
        # RF64 is WAV with an additional chunk of 36 bytes, for sizes that need 8 bytes.
        sizes = bytes(8) + there.to_bytes(8, "little") + bytes(12)
        head = b"RF64" + head[4:12] + b"ds64" + (28).to_bytes(4, "little") + sizes + head[12:]
        return Link(start=-36, head=head)
    return Link(head=head)


def _find_samples(kind: str, layout: _Layout, data: Window) -> _Samples | None:
    """The chunk with the samples, or None if there is none."""
    if kind == "au":
        start, size = (int.from_bytes(data.at(at, 4), layout.order) for at in (4, 8))
        return _Samples(start, size, 8, 4)
    position, head = layout.start, layout.name + layout.length
    wide = 0  # where RF64 writes the size, which needs 8 bytes
    for _ in range(_MOST_CHUNKS):
        if position + head > data.size:
            break
        begin = position + head
        name, size, position = layout.chunk(data, position)
        if name == b"ds64":
            wide = begin + 8
        if name[:4] == layout.data:
            if wide:  # libsndfile, too, uses this size, whatever the chunk says
                return _Samples(begin, int.from_bytes(data.at(wide, 8), layout.order), wide, 8)
            more = layout.skip + (head if layout.counts_itself else 0)
            field = begin - layout.length
            return _Samples(begin + layout.skip, max(0, size - more), field, layout.length, more)
    return None


def _only_chunks(layout: _Layout, data: Window, end: int) -> bool:
    """Whether only other chunks follow the samples, such as tags or cue points.

    A second chunk of samples, or a second file, is audio that is not read.
    """
    audio = layout.data, data.at(0, 4)
    position = end + -(end - layout.start) % layout.align
    while data.size - position >= layout.name + layout.length:
        name, _, position = layout.chunk(data, position)
        if (
            name[:4] in audio
            or not all(32 <= byte < 127 for byte in name[:4])
            or position > data.size + layout.align
        ):
            return False
    return True


_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # before them in ASF


def warn_of_cut_asf(data: Window, warn: Warn) -> None:
    """Warn if the header of an ASF (WMA) file gives a larger size of the file."""
    at = data.at(0, 2**16).find(_FILE_PROPERTIES)
    size = int.from_bytes(data.at(at + 40, 8), "little") if at > 0 else 0
    if size > data.size:
        warn(f"is cut off: {data.size} of {size} bytes are there")
