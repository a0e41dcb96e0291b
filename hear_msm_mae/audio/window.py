"""A range of a file's bytes: read at any place, and given to a decoder as a file object."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

Warn = Callable[[str], None]

_CHUNK = 2**16  # bytes that are searched at once
_READ_AHEAD = 2**14  # bytes; libFLAC and libmpg123 ask for up to 8 KiB at once
_STEP = 64  # bytes


class Unreadable(Exception):
    """The reason why a file cannot be decoded, without the file's name."""


class Link(NamedTuple):
    """A part of a file that one decoder reads from beginning to end.

    Attributes:
        start, stop: range of bytes in the file; None means the end of the file.
        head: corrected bytes that replace the first ones of the range. A negative `start` makes
            room for additional ones.
        sndfile: whether libsndfile decodes it; otherwise PyAV is needed.
    """

    start: int = 0
    stop: int | None = None
    head: bytes = b""
    sndfile: bool = True


class Window(io.RawIOBase):
    """The bytes of a link as a file object.

    They are not mapped into memory, because a file that shrinks would then end the process.

    Args:
        file: the file.
        link: the range.
        stepwise: give the last bytes to `readinto` in small steps, so that the position shows where
            a decoder that reads ahead has stopped.
    """

    def __init__(
        self,
        file: BinaryIO,
        link: Link = Link(),  # noqa: B008  (immutable)
        stepwise: bool = False,
    ) -> None:
        super().__init__()
        self._stepwise = stepwise
        self._file, self._start, self._head = file, link.start, link.head
        stop = os.fstat(file.fileno()).st_size if link.stop is None else link.stop
        self.size = stop - link.start
        self._position = 0

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True

    def tell(self) -> int:
        """Position in the window, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also behind the end; returns the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes, all that follow by default; fewer at the end."""
        left = max(0, self.size - self._position)
        count = left if count < 0 else min(count, left)
        data = self._head[self._position : self._position + count]
        if len(data) < count:
            self._file.seek(self._start + self._position + len(data))
            data += self._file.read(count - len(data))
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes; returns their number."""
        near_end = self._stepwise and self.size - self._position <= _READ_AHEAD
        data = self.read(min(len(buffer), _STEP) if near_end else len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes from a position on; fewer at the end."""
        self.seek(position)
        return self.read(count)

    def find(self, what: bytes, position: int) -> int:
        """First place of `what` from a position on; the size if there is none."""
        while position < self.size:
            chunk = self.at(position, _CHUNK)
            found = chunk.find(what)
            if found >= 0:
                return position + found
            if len(chunk) < len(what):
                break
            position += len(chunk) - len(what) + 1  # it may begin in one chunk and end in the next
        return self.size

    def after_id3(self) -> int:
        """End of the ID3v2 tags at the beginning; 0 if there are none."""
        position = 0
        while True:
            head = self.at(position, 10)
            if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 127:
                return position
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            position += 10 + size + (10 if head[5] & 0x10 else 0)

    def before_tags(self) -> int:
        """Start of the ID3v1, APE and Lyrics3 tags at the end; the size if there are none."""
        end = self.size
        while True:
            foot = self.at(end - 32, 32) if end >= 128 else b""
            size = 0
            if foot and self.at(end - 128, 3) == b"TAG":
                size = 128
            elif foot.startswith(b"APETAGEX"):  # its size has the footer, but not the header
                size = int.from_bytes(foot[12:16], "little") + (32 if foot[23] & 0x80 else 0)
            elif foot.endswith(b"LYRICS200") and foot[-15:-9].isdigit():
                size = int(foot[-15:-9]) + 15
            if not 0 < size <= end:
                return end
            end -= size
