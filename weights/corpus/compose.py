"""Melodies out of a scale, for the kinds that play music."""

from __future__ import annotations

from random import Random

SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 8, 11),
    (0, 2, 4, 7, 9),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 4, 5, 7, 9, 10),
    (0, 3, 5, 6, 7, 10),
    (0, 1, 3, 5, 7, 8, 10),
)  # semitones: major, minor, harmonic minor, pentatonic, dorian, mixolydian, blues, phrygian
SIXTEENTHS = 16  # steps of a bar
# General MIDI programs that can carry a tune: no basses, percussion and effects.
LEADS = tuple(p for p in range(112) if not 32 <= p < 40)


def motif(rng: Random) -> list[tuple[int, int, int]]:
    """A bar of melody: (start in sixteenths, length in sixteenths, scale steps above root)."""
    result, position, level = [], 0, rng.randint(0, 7)
    while position < SIXTEENTHS:
        length = rng.choice((1, 2, 2, 2, 3, 4, 4, 6, 8))
        if rng.random() < 0.85:  # otherwise a rest
            result.append((position, length, level))
        level = min(14, max(-3, level + rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 4))))
        position += length
    return result


def pitch_of(scale: tuple[int, ...], key: int, degree: int) -> int:
    """MIDI pitch of a scale degree, which may be negative or beyond an octave."""
    octave, index = divmod(degree, len(scale))
    return min(127, max(0, key + 12 * octave + scale[index]))
