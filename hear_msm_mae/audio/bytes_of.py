"""Bytes of an audio file: read at any place, and joined in a new order as a file-like object."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

# A part of the bytes that a decoder reads: given bytes, or the bytes (start, stop) of the file.
Piece = bytes | tuple[int, int]
Warn = Callable[[str], None]

_CHUNK = 2**16  # bytes that are searched at once


class Unreadable(Exception):
    """The reason why a file cannot be decoded, without the file's name."""


class Link(NamedTuple):
    """A part of a file that one decoder reads from beginning to end.

    Attributes:
        pieces: the bytes that the decoder reads; None means the whole file, unchanged.
        frames: lower bound of the samples per channel; 0 if unknown.
        seekable: whether seeking gives the same samples as decoding from the beginning.
        sndfile: whether libsndfile decodes it correctly; otherwise PyAV is needed.
    """

    pieces: tuple[Piece, ...] | None = None
    frames: int = 0
    seekable: bool = False
    sndfile: bool = True


class Bytes:
    """The bytes of a file.

    They are not mapped into memory, because a file that shrinks would then end the process.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes from a position on; fewer at the end of the file."""
        self.file.seek(position)
        return self.file.read(count)

    def find(self, what: bytes, position: int) -> int:
        """First place of `what` from a position on; the size of the file if there is none."""
        while position < self.size:
            chunk = self.at(position, _CHUNK)
            found = chunk.find(what)
            if found >= 0:
                return position + found
            if len(chunk) < len(what):
                break
            position += len(chunk) - len(what) + 1  # it may begin in one chunk and end in the next
        return self.size

    def after_id3(self, position: int = 0) -> int:
        """End of the ID3v2 tags that begin at a position; the position if there are none."""
        while True:
            head = self.at(position, 10)
            if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 127:
                return position
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            position += 10 + size + (10 if head[5] & 0x10 else 0)


class View(io.RawIOBase):
    """Pieces of a file, one after the other, as a file object."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._file = file
        self._pieces: list[tuple[int, int, Piece]] = []  # where each begins and ends in the view
        self._size = self._position = 0
        for piece in pieces:
            size = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._pieces.append((self._size, self._size + size, piece))
            self._size += size

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True

    def tell(self) -> int:
        """Position in the view, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also behind the end; returns the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes, all that follow by default; fewer where the file became shorter."""
        if count < 0:
            count = max(0, self._size - self._position)
        parts = []
        for first, stop, piece in self._pieces:
            if first <= self._position < stop and count:
                begin = self._position - first
                size = min(count, stop - self._position)
                if isinstance(piece, bytes):
                    part = piece[begin : begin + size]
                else:
                    self._file.seek(piece[0] + begin)
                    part = self._file.read(size)
                parts.append(part)
                self._position += len(part)
                count -= len(part)
                if len(part) < size:  # the file became shorter
                    break
        return b"".join(parts)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes; returns their number."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
