"""MPEG audio (MP3, MP2): find all frames of a file, so that it is decoded to its end.

libsndfile stops at the length in the tag of the first frame, or at an estimate from the first
frame's bit rate, or at bytes that are not frames. Therefore the frames are counted here, and
libsndfile gets a file of frames only, with a correct tag.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

from .bytes_of import Bytes, Link, Piece, Warn

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz
# kbit/s of the 14 bit rate indices, by (version 1, layer).
_HIGH = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BITRATES = {
    (True, 1): _HIGH,
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW,
    (False, 3): _LOW,
}
_HEAD = 40  # bytes of a frame that are inspected: up to the end of the tag's name
_DECODER_DELAY = 529  # samples


class _Header(NamedTuple):
    """A frame's header. Frames of one stream have the same `kind`."""

    kind: tuple[int, int, int, bool]  # version, layer, rate in Hz, mono
    size: int  # bytes of the frame
    samples: int  # per channel
    tag: int  # where a Xing tag would begin in the frame


@dataclass
class _Run:
    """Consecutive frames of one kind, which form a stream."""

    kind: tuple[int, int, int, bool]
    first: bytes  # header of its first frame
    ranges: list[tuple[int, int]] = field(default_factory=list)  # bytes of its frames
    frames: int = 0  # without the tag's
    samples: int = 0
    tag: int | None = None  # where the number of frames is written in the file
    tagged: int = 0  # what is written there

    def add(self, start: int, stop: int) -> None:
        if self.ranges and self.ranges[-1][1] == start:
            self.ranges[-1] = (self.ranges[-1][0], stop)
        else:
            self.ranges.append((start, stop))


@functools.lru_cache(maxsize=4096)
def parse_header(head: bytes) -> _Header | None:
    """The header of an MPEG audio frame, from its first 4 bytes.

    Returns:
        The header; None if it is not one, or if its "free format" does not give the frame's size.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    mono = head[3] >> 6 == 3
    hertz = _RATES[version][rate]
    bits = 1000 * _BITRATES[version == 3, layer][bitrate - 1]
    if layer == 1:
        samples, size = 384, 4 * (12 * bits // hertz + padding)
    else:
        samples = 576 if layer == 3 and version != 3 else 1152
        size = samples // 8 * bits // hertz + padding
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Header((version, layer, hertz, mono), size, samples, 4 + side)


def begins_frames(data: Bytes, position: int) -> bool:
    """Whether a frame begins here, followed by another of its kind, a tag or the end."""
    header = parse_header(data.at(position, 4))
    if header is None:
        return False
    behind = data.at(position + header.size, 4)
    following = parse_header(behind)
    return (
        (following is not None and following.kind == header.kind)
        or position + header.size == data.size
        or behind[:3] in (b"ID3", b"TAG", b"APE", b"LYR")
    )


def mpeg_links(data: Bytes, warn: Warn) -> tuple[Link, ...]:
    """Find the frames of a file.

    Args:
        warn: called with a message about bytes between frames, or about a wrong tag.

    Returns:
        The streams. There are several if MP3 files were concatenated, and none without frames.
    """
    runs = _scan(data, warn)
    if len(runs) == 1 and len(runs[0].ranges) == 1 and runs[0].tagged == runs[0].frames:
        return (Link(),)
    return tuple(_link(data, run, warn) for run in runs)


def _scan(data: Bytes, warn: Warn) -> list[_Run]:
    runs: list[_Run] = []
    position = data.after_id3()
    run: _Run | None = None
    in_step = False  # whether a frame ends at this position
    lost: list[int] = []  # start of bytes that are not frames
    lost_bytes = 0
    while position < data.size:
        head = data.at(position, _HEAD)
        header = parse_header(head[:4])
        if header is not None and position + header.size > data.size and in_step:
            warn(f"is cut off in its last frame, at byte {position}")
            break
        same = run is not None and header is not None and header.kind == run.kind
        if header is None or not ((in_step and same) or begins_frames(data, position)):
            behind = _after_tag(data, position)
            if behind == position:
                behind = _next_frames(data, position + 1)
                lost.append(position)
                lost_bytes += behind - position
            position, in_step = behind, False
            continue
        name = head[header.tag : header.tag + 4]
        if run is None or not same or name in (b"Xing", b"Info"):
            run = _Run(header.kind, head[:4])
            runs.append(run)
        stop = position + header.size
        if name in (b"Xing", b"Info") and header.kind[1] == 3:
            flags_and_count = data.at(position + header.tag + 4, 8)
            if flags_and_count[3:4] and flags_and_count[3] & 1:
                run.tag = position + header.tag + 8
                run.tagged = int.from_bytes(flags_and_count[4:], "big")
                run.add(position, stop)
        elif head[36:40] != b"VBRI":
            run.add(position, stop)
            run.frames += 1
            run.samples += header.samples
        position, in_step = stop, True
    if runs and lost:
        where = ", ".join(map(str, lost[:3])) + (" ..." if len(lost) > 3 else "")
        warn(f"has {lost_bytes} bytes that are not MPEG frames, from byte {where} on; skipped")
    return [run for run in runs if run.frames]


def _after_tag(data: Bytes, position: int) -> int:
    """End of another tag that begins at a position; the position if there is none."""
    head = data.at(position, 32)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        header = 32 if head[23] & 0x20 else 0  # else it is the footer alone
        return position + (header + int.from_bytes(head[12:16], "little") if header else 32)
    if head[:3] == b"TAG":
        return position + 128
    if head[:11] == b"LYRICSBEGIN":
        return min(data.find(end, position) for end in (b"LYRICS200", b"LYRICSEND")) + 9
    return data.after_id3(position)


def _next_frames(data: Bytes, position: int) -> int:
    """Position of the next frame after other bytes; the size of the file if there is none."""
    while True:
        position = data.find(b"\xff", position)
        if position >= data.size or begins_frames(data, position):
            return position
        position += 1


def _link(data: Bytes, run: _Run, warn: Warn) -> Link:
    """The frames with a correct tag, for libsndfile."""
    pieces: list[Piece] = list(run.ranges)
    if run.tag is not None:
        if abs(run.tagged - run.frames) > 1:
            warn(f"has {run.frames} MPEG frames, but its header says {run.tagged}; all are read")
        start, stop = run.ranges[0]
        count = run.frames.to_bytes(4, "big")
        pieces[:1] = [(start, run.tag), count, (run.tag + 4, stop)]
    elif run.kind[1] == 3:
        pieces.insert(0, _tag_frames(run))
    # Layers I and II have no tags, so libsndfile estimates the number of samples.
    return Link(tuple(pieces), 0 if run.kind[1] == 3 else run.samples)


def _tag_frames(run: _Run) -> bytes:
    """Two silent frames: one with a tag that counts the frames, and one that is dropped.

    libmpg123 drops at least `_DECODER_DELAY` samples at the start of a file with a tag. The tag
    makes it drop the second silent frame instead.
    """
    for bitrate in range(1, 15):
        # The lowest bit rate whose frame is long enough for the tag, without a check sum.
        head = bytes((0xFF, run.first[1] | 1, bitrate << 4 | run.first[2] & 0x0C, run.first[3]))
        header = parse_header(head)
        if header is not None and header.size >= header.tag + 36:
            break
    assert header is not None
    delay = header.samples - _DECODER_DELAY
    tag = b"Info" + (1).to_bytes(4, "big") + (run.frames + 1).to_bytes(4, "big")
    tag += b"LAME".ljust(21, b"\0") + (delay << 12).to_bytes(3, "big")
    silence = head.ljust(header.size, b"\0")
    return (head.ljust(header.tag, b"\0") + tag).ljust(header.size, b"\0") + silence
