"""Audio that packages keep in containers of games and in tracker modules, made into files."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from weights.corpus.packages import BuildError, require, run

log = logging.getLogger(__name__)

#: Scores with their own samples; libopenmpt in ffmpeg plays them, libsndfile does not.
MODULE_SUFFIXES = frozenset({".it", ".med", ".mod", ".mptm", ".s3m", ".stm", ".xm"})
LONGEST_MODULE_SECONDS = 900
SAMPLE_RATE = 16_000


def play_modules(tree: Path) -> None:
    """Decode every tracker module of `tree` to a mono 16 kHz FLAC file beside it."""
    modules = [p for p in sorted(tree.rglob("*")) if p.suffix.lower() in MODULE_SUFFIXES]
    for module in modules:
        if module.is_symlink() or not module.is_file():
            continue
        target = module.with_name(module.name + ".flac")
        command = [require("ffmpeg", "ffmpeg"), "-v", "error", "-nostdin", "-y"]
        command += ["-f", "libopenmpt", "-i", str(module), "-t", str(LONGEST_MODULE_SECONDS)]
        # Bit-exact and without metadata: equal modules give equal files, so one is a duplicate.
        command += ["-ac", "1", "-ar", str(SAMPLE_RATE), "-bitexact", "-map_metadata", "-1"]
        try:
            run([*command, str(target)])
        except BuildError as error:  # other files have these suffixes too
            log.warning("not a module: %s (%s)", module.name, error)
            target.unlink(missing_ok=True)


def amazon_queen(tree: Path) -> None:
    """Speech of Flight of the Amazon Queen: MP3 files in `queen.1c` ("QTBL" version CEM10)."""
    [container] = tree.rglob("queen.1c")
    data = container.read_bytes()
    (entries,) = struct.unpack_from(">H", data, 13)
    for index in range(entries):
        # 12 bytes of name, one of the bundle, then offset and size.
        name, _, offset, size = struct.unpack_from(">12sBII", data, 15 + 21 * index)
        stem, _, suffix = name.rstrip(b"\0").decode("latin1").partition(".")
        if suffix == "SB":
            _beside(container, f"{stem}.mp3").write_bytes(data[offset : offset + size])


def steel_sky(tree: Path) -> None:
    """Speech of Beneath a Steel Sky: 8-bit samples at 11 025 Hz in `sky.dsk`, RNC-packed."""
    [table_file] = tree.rglob("sky.dnr")
    table, data = table_file.read_bytes(), table_file.with_name("sky.dsk").read_bytes()
    (entries,) = struct.unpack_from("<I", table)
    for index in range(entries):
        entry = table[4 + 8 * index : 12 + 8 * index]
        number = int.from_bytes(entry[:2], "little")
        if not 50_000 <= number < 55_000:  # the numbers of speech
            continue
        offset = int.from_bytes(entry[2:5], "little")
        if offset >> 23:  # counted in units of 16 bytes
            offset = (offset & 0x7FFFFF) << 4
        size = int.from_bytes(entry[5:8], "little") & 0x3FFFFF
        samples = unpack_rnc(data[offset + 22 : offset + size])  # a header of 22 bytes before it
        waveform = (np.frombuffer(samples, np.uint8).astype(np.int16) - 128) << 8  # (n,)
        soundfile.write(_beside(table_file, f"{number}.flac"), waveform, 11_025, subtype="PCM_16")


def _beside(container: Path, name: str) -> Path:
    folder = container.with_name(container.name + ".unpacked")
    folder.mkdir(exist_ok=True)
    return folder / name


#: Functions by the name that the column `extract` of sources.csv gives.
EXTRACTORS: dict[str, Callable[[Path], None]] = {
    "amazon_queen": amazon_queen,
    "steel_sky": steel_sky,
}


class _Bits:
    """Bits of an RNC stream, lowest first; the stream has literal bytes between its words.

    Words of 16 bits are read ahead into `low`, so bytes that are copied in between come after
    the words already read.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data + bytes(4)
        self.position = position
        self.low = self._word(0)
        self.high, self.count = 0, 0

    def _word(self, ahead: int) -> int:
        return int.from_bytes(
            self.data[self.position + ahead : self.position + ahead + 2], "little"
        )

    def take(self, count: int) -> int:
        """The next `count` bits."""
        value = self.low & ((1 << count) - 1)
        left = self.count - count
        if left < 0:
            first = self.count
            self.low = ((self.low >> first) | (self.high << (16 - first))) & 0xFFFF
            self.high >>= first
            self.position += 2
            self.high = self._word(0)
            count -= first
            left = 16 - count
        self.count = left
        self.low = ((self.low >> count) | (self.high << (16 - count))) & 0xFFFF
        self.high >>= count
        return value

    def copy(self, count: int) -> bytes:
        """Literal bytes, after which the words that were read ahead are read again."""
        start, self.position = self.position, self.position + count
        known = self.low & ((1 << self.count) - 1)
        self.low = (known | (self._word(0) << self.count)) & 0xFFFF
        self.high = (self._word(0) >> (16 - self.count)) | (self._word(2) << self.count)
        self.high &= 0xFFFF
        return self.data[start : start + count]


def _read_table(bits: _Bits) -> tuple[list[tuple[int, int]], int]:
    """A Huffman table as a direct look-up by the next bits: (code length, symbol), and a mask."""
    lengths = [bits.take(4) for _ in range(bits.take(5))]
    longest = max(lengths, default=0)
    lookup = [(0, 0)] * (1 << longest)
    code = 0
    for length in range(1, longest + 1):
        for symbol, own in enumerate(lengths):
            if own != length:
                continue
            # The stream has the code's bits in the other order.
            reverse = int(f"{code >> (longest - length):0{length}b}"[::-1], 2)
            for above in range(1 << (longest - length)):
                lookup[reverse | above << length] = (length, symbol)
            code += 1 << (longest - length)
    return lookup, (1 << longest) - 1


def _read_value(bits: _Bits, table: tuple[list[tuple[int, int]], int]) -> int:
    """A number: its size class by the table, then its bits below the first."""
    length, size = table[0][bits.low & table[1]]
    bits.take(length)
    return size if size < 2 else bits.take(size - 1) | 1 << (size - 1)


def unpack_rnc(data: bytes) -> bytes:
    r"""Decompress Rob Northen Compression, method 1 (the bytes from "RNC\1" on).

    Raises:
        BuildError: the data is not RNC, or does not unpack to the size its header names.
    """
    if data[:4] != b"RNC\x01":
        raise BuildError("not an RNC stream of method 1")
    size, blocks = int.from_bytes(data[4:8], "big"), data[17]
    bits, out = _Bits(data, 18), bytearray()
    bits.take(2)  # flags
    for _ in range(blocks):
        literals, distances, lengths = (_read_table(bits) for _ in range(3))
        for left in range(bits.take(16) - 1, -1, -1):
            count = _read_value(bits, literals)
            if count:
                out += bits.copy(count)
            if left:
                start = len(out) - _read_value(bits, distances) - 1
                length = _read_value(bits, lengths) + 2
                for index in range(start, start + length):  # may overlap what it writes
                    out.append(out[index])
    if len(out) != size:
        raise BuildError(f"RNC gave {len(out)} bytes instead of {size}")
    return bytes(out)
