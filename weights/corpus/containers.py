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
        # The exception are a few modules that ask for random volumes.
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
    """Bits of an RNC stream, lowest first, in words of 16; literal bytes lie between the words."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.waiting = self.count = 0  # bits of the last word that are not taken yet

    def take(self, count: int) -> int:
        """The next `count` bits, at most 16."""
        if count > self.count:
            word = int.from_bytes(self.data[self.position : self.position + 2], "little")
            self.position += 2
            self.waiting |= word << self.count
            self.count += 16
        value = self.waiting & ((1 << count) - 1)
        self.waiting >>= count
        self.count -= count
        return value

    def copy(self, count: int) -> bytes:
        """Literal bytes."""
        start, self.position = self.position, self.position + count
        return self.data[start : start + count]

    def table(self) -> dict[tuple[int, int], int]:
        """A Huffman table: symbol by (length, code)."""
        lengths = [self.take(4) for _ in range(self.take(5))]
        found, code = {}, 0
        for length in range(1, 16):
            for symbol in [s for s, own in enumerate(lengths) if own == length]:
                found[length, code] = symbol
                code += 1
            code <<= 1
        return found

    def value(self, table: dict[tuple[int, int], int]) -> int:
        """A number: its size in bits by the table, then its bits below the first."""
        length = code = 0
        while (length, code) not in table:
            length, code = length + 1, code << 1 | self.take(1)
            if length > 15:
                raise BuildError("the RNC stream is damaged")
        size = table[length, code]
        return size if size < 2 else self.take(size - 1) | 1 << (size - 1)


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
        literals, distances, lengths = bits.table(), bits.table(), bits.table()
        for left in range(bits.take(16) - 1, -1, -1):
            out += bits.copy(bits.value(literals))
            if left:
                start = len(out) - bits.value(distances) - 1
                length = bits.value(lengths) + 2
                for index in range(start, start + length):  # may overlap what it writes
                    out.append(out[index])
    if len(out) != size:
        raise BuildError(f"RNC gave {len(out)} bytes instead of {size}")
    return bytes(out)
