"""General MIDI: notes and chords of every program, the sounds of drum kits, and drum loops.

Whole pieces are in the kinds `bands` and `folk`. Rate: about 0.01 cpu-seconds a second of audio.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from weights.corpus import soundfonts
from weights.corpus.compose import SIXTEENTHS
from weights.corpus.midi import DRUM_CHANNEL, Score
from weights.corpus.rendering import Waveform

CHORDS = (
    (0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 4, 7, 10), (0, 3, 6), (0, 5, 7),
    (0, 7), (0, 12),
)  # semitones above the root  # fmt: skip
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40, 48)
KICK, SNARES, HATS = 36, (38, 40, 37, 39), (42, 46, 51, 54, 70)
HAND_DRUMS = (37, 39, 41, 43, 45, 47, 48, 50, 54, 56, 60, 61, 62, 63, 64, 69, 70, 75, 76, 77)


def setup(cache: Path) -> list[Path]:
    """The fonts."""
    return soundfonts.fonts(cache)


def clip(rng: Random, fonts: list[Path]) -> tuple[Waveform, float]:
    """A score of one of the three sorts, 45 to 90 s, played with one of the fonts."""
    make = rng.choices((notes, drum_hits, drum_loop), (0.7, 0.08, 0.22))[0]
    with tempfile.TemporaryDirectory() as scratch:
        score = Path(scratch, "score.mid")
        make(rng).write(score)
        return soundfonts.play(score, rng.choice(fonts), rng)


def notes(rng: Random) -> Score:
    """24 single notes over the whole range, then eight chords, of one program, about 60 s."""
    score, now = Score(), 0.1
    score.program(0.0, 0, rng.randrange(128))
    # One pitch from each part of the range, in random order: all registers are covered.
    chords: list[tuple[int, ...]] = [
        (round(24 + 78 * (part + rng.random()) / 24),) for part in range(24)
    ]
    rng.shuffle(chords)
    for _ in range(8):
        root = rng.randint(36, 76)
        chords.append(tuple(root + step for step in rng.choice(CHORDS)))
    for chord in chords:
        length, velocity = rng.choice((0.15, 0.3, 0.6, 1.0, 1.5, 2.0)), rng.randint(30, 127)
        for pitch in chord:
            score.note(now, length, 0, pitch, velocity)
        now += length + rng.uniform(0.2, 0.9)
    score.end(now + 0.5)
    return score


def drum_hits(rng: Random) -> Score:
    """Every sound of a drum kit, at two velocities, in random order."""
    score, now = Score(), 0.1
    score.program(0.0, DRUM_CHANNEL, rng.choice(DRUM_KITS))
    hits = [(pitch, velocity) for pitch in range(27, 88) for velocity in (60, 115)]
    rng.shuffle(hits)
    for pitch, velocity in hits:
        score.note(now, 0.2, DRUM_CHANNEL, pitch, velocity + rng.randint(-20, 10))
        now += rng.uniform(0.35, 1.2)
    score.end(now + 1.0)
    return score


def drum_loop(rng: Random) -> Score:
    """Bars of drums, a new pattern every four to eight bars, about 45 s."""
    score, now = Score(), 0.1
    score.program(0.0, DRUM_CHANNEL, rng.choice(DRUM_KITS))
    step = 60 / rng.uniform(70, 170) / 4
    while now < 45:
        hat, snare, every = rng.choice(HATS), rng.choice(SNARES), rng.choice((1, 2, 2, 4))
        pattern = [(s, hat) for s in range(0, SIXTEENTHS, every)]
        pattern += [(s, KICK) for s in {0, 8, *rng.choices(range(SIXTEENTHS), k=2)}]
        pattern += [(s, snare) for s in rng.choice(((4, 12), (8,), (4, 12, 15), (4, 10)))]
        pattern += [(rng.randrange(SIXTEENTHS), rng.choice(HAND_DRUMS)) for _ in range(3)]
        for _ in range(rng.choice((4, 8))):
            for position, pitch in pattern:
                start = now + position * step + abs(rng.gauss(0, 0.004))
                score.note(start, 0.1, DRUM_CHANNEL, pitch, rng.randint(50, 115))
            now += SIXTEENTHS * step
    score.end(now + 1.0)
    return score
