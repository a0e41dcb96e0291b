"""A small writer of Standard MIDI Files (format 0), enough to drive a synthesiser."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_SECOND = 1000  # so that one tick is 1 ms
DRUM_CHANNEL = 9


@dataclass
class Score:
    """Timed MIDI messages; times in seconds.

    Example:
        >>> score = Score()
        >>> score.program(0.0, channel=0, program=40)
        >>> score.note(0.0, 0.5, channel=0, pitch=69, velocity=90)
        >>> score.to_bytes()[:4]
        b'MThd'
    """

    events: list[tuple[int, int, bytes]] = field(default_factory=list)  # (tick, order, message)

    def _add(self, seconds: float, order: int, message: bytes) -> None:
        self.events.append((round(seconds * TICKS_PER_SECOND), order, message))

    def program(self, start: float, channel: int, program: int) -> None:
        """Choose the instrument (0 to 127; on the drum channel: the kit)."""
        self._add(start, 1, bytes((0xC0 | channel, program)))

    def control(self, start: float, channel: int, number: int, value: int) -> None:
        """A control change, e.g. 7 volume, 10 pan, 91 reverb (values 0 to 127)."""
        self._add(start, 1, bytes((0xB0 | channel, number, value)))

    def note(self, start: float, length: float, channel: int, pitch: int, velocity: int) -> None:
        """A note: start and length in seconds, pitch and velocity 0 to 127."""
        self._add(start, 2, bytes((0x90 | channel, pitch, velocity)))
        # Ends sort before starts of the same tick, else a repeated pitch is cut off at once.
        end = max(start + length, start + 2 / TICKS_PER_SECOND)
        self._add(end, 0, bytes((0x80 | channel, pitch, 0)))

    def end(self, seconds: float) -> None:
        """Make the piece last at least until this time, for the last note to fade."""
        self._add(seconds, 3, bytes((0xB0 | DRUM_CHANNEL, 123, 0)))  # all notes off

    def to_bytes(self) -> bytes:
        """The file's content; equal events give equal bytes."""
        # 500 ticks per quarter note of 500 000 microseconds: 1 ms per tick.
        track = b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big")
        now = 0
        for tick, _, message in sorted(self.events):
            track += variable_length(tick - now) + message
            now = tick
        track += b"\x00\xff\x2f\x00"  # end of track
        header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_SECOND // 2)
        return header + struct.pack(">4sI", b"MTrk", len(track)) + track

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(self.to_bytes())


def variable_length(value: int) -> bytes:
    """A MIDI variable-length quantity: 7 bits per byte, most significant first."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))
