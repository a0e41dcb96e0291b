"""Random but musical scores for General MIDI: notes, chords, drum kits, whole pieces.

Everything is drawn from a `random.Random`, so a seed decides every byte.
"""

from __future__ import annotations

from random import Random

from weights.corpus.midi import DRUM_CHANNEL, Score

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
CHORDS = (
    (0, 4, 7),
    (0, 3, 7),
    (0, 4, 7, 11),
    (0, 3, 7, 10),
    (0, 4, 7, 10),
    (0, 3, 6),
    (0, 5, 7),
    (0, 7),
    (0, 12),
)  # semitones above the root
PROGRESSIONS = (
    (0, 3, 4, 0),
    (0, 5, 3, 4),
    (5, 3, 0, 4),
    (0, 4, 5, 3),
    (1, 4, 0, 0),
    (0, 2, 3, 4),
    (0, 6, 5, 4),
    (0, 0, 3, 3),
)  # scale degrees, one per bar
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40, 48)
DRUM_PITCHES = range(27, 88)
KICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH, RIDE = 36, 38, 42, 46, 49, 51
TOMS = (41, 43, 45, 47, 48, 50)
HAND_DRUMS = (37, 39, 54, 56, 60, 61, 62, 63, 64, 69, 70, 75, 76, 77)
SIXTEENTHS = 16  # steps of a bar
# Families of eight programs each that can carry a part (113 and above are effects).
LEADS = tuple(p for p in range(112) if not 32 <= p < 40)
BASSES = tuple(range(32, 40))
PADS = (*range(8), *range(16, 32), *range(40, 56), *range(88, 96))


def notes(program: int, rng: Random, single: int = 24, chords: int = 8) -> Score:
    """Single notes over the whole range, then chords, of one program, about 60 s."""
    score = Score()
    score.program(0.0, 0, program)
    now = 0.1
    # One pitch from each part of the range, in random order: all registers are covered.
    pitches = [round(24 + 78 * (i + rng.random()) / single) for i in range(single)]
    rng.shuffle(pitches)
    for pitch in pitches:
        length = rng.choice((0.15, 0.3, 0.6, 1.0, 1.5, 2.0))
        score.note(now, length, 0, pitch, rng.randint(30, 127))
        now += length + rng.uniform(0.2, 0.9)
    for _ in range(chords):
        root, length = rng.randint(36, 76), rng.choice((0.4, 0.8, 1.6))
        velocity = rng.randint(40, 120)
        for step in rng.choice(CHORDS):
            score.note(now, length, 0, root + step, velocity)
        now += length + rng.uniform(0.2, 0.8)
    score.end(now + 0.5)
    return score


def drum_hits(kit: int, rng: Random) -> Score:
    """Every sound of a drum kit, at two velocities, in random order."""
    score = Score()
    score.program(0.0, DRUM_CHANNEL, kit)
    now = 0.1
    hits = [(pitch, velocity) for pitch in DRUM_PITCHES for velocity in (60, 115)]
    rng.shuffle(hits)
    for pitch, velocity in hits:
        score.note(now, 0.2, DRUM_CHANNEL, pitch, velocity + rng.randint(-20, 10))
        now += rng.uniform(0.35, 1.2)
    score.end(now + 1.0)
    return score


def drum_pattern(score: Score, rng: Random, start: float, bars: int, step: float) -> None:
    """Add a repeated bar of drums with fills; `step` is a sixteenth in seconds."""
    hat = rng.choice((CLOSED_HAT, CLOSED_HAT, RIDE, 54, 70))
    hat_every = rng.choice((1, 2, 2, 4))
    kicks = {0, rng.choice((6, 8, 10))} | {s for s in range(SIXTEENTHS) if rng.random() < 0.1}
    snares = rng.choice(({4, 12}, {8}, {4, 12, 15}, {4, 10}))
    hands = {s: rng.choice(HAND_DRUMS) for s in range(SIXTEENTHS) if rng.random() < 0.12}
    for bar in range(bars):
        bar_start = start + bar * SIXTEENTHS * step
        fill = bar % 4 == 3 and rng.random() < 0.6
        for s in range(SIXTEENTHS):
            now = bar_start + s * step + rng.gauss(0, 0.004)
            now = max(now, 0.0)
            if fill and s >= 12:
                score.note(now, 0.1, DRUM_CHANNEL, rng.choice(TOMS), rng.randint(80, 120))
                continue
            if s in kicks:
                score.note(now, 0.1, DRUM_CHANNEL, KICK, rng.randint(90, 120))
            if s in snares:
                score.note(now, 0.1, DRUM_CHANNEL, SNARE, rng.randint(80, 120))
            if s in hands:
                score.note(now, 0.1, DRUM_CHANNEL, hands[s], rng.randint(50, 100))
            if s % hat_every == 0:
                pitch = OPEN_HAT if hat == CLOSED_HAT and rng.random() < 0.08 else hat
                score.note(now, 0.1, DRUM_CHANNEL, pitch, rng.randint(45, 100))
        if bar % 8 == 0:
            score.note(bar_start, 1.0, DRUM_CHANNEL, CRASH, rng.randint(70, 110))


def drum_loop(rng: Random, seconds: float) -> Score:
    """Patterns for drums alone, a new one every four to eight bars."""
    score = Score()
    score.program(0.0, DRUM_CHANNEL, rng.choice(DRUM_KITS))
    step = 60 / rng.uniform(70, 170) / 4
    now = 0.1
    while now < seconds:
        bars = rng.choice((4, 8))
        drum_pattern(score, rng, now, bars, step)
        now += bars * SIXTEENTHS * step
    score.end(now + 1.0)
    return score


def piece(rng: Random, seconds: float) -> Score:
    """A piece with melody, second voice, chords, bass and (mostly) drums in one key."""
    score = Score()
    programs = (rng.choice(LEADS), rng.choice(LEADS), rng.choice(PADS), rng.choice(BASSES))
    for channel, program in enumerate(programs):
        score.program(0.0, channel, program)
        score.control(0.0, channel, 7, rng.randint(70, 115))  # volume
        score.control(0.0, channel, 91, rng.randint(0, 90))  # reverb
    score.program(0.0, DRUM_CHANNEL, rng.choice(DRUM_KITS))
    parts = {part for part in range(4) if rng.random() < 0.8} or {0}
    drums = rng.random() < 0.7
    scale, key = rng.choice(SCALES), rng.randint(48, 59)
    step = 60 / rng.uniform(60, 160) / 4
    motifs = [motif(rng) for _ in range(3)]
    now = 0.1
    while now < seconds:
        progression = rng.choice(PROGRESSIONS)
        if drums and rng.random() < 0.85:
            drum_pattern(score, rng, now, len(progression), step)
        for degree in progression:
            play_bar(score, rng, now, step, parts, scale, key, degree, motifs)
            now += SIXTEENTHS * step
    score.end(now + 1.5)
    return score


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


def play_bar(
    score: Score,
    rng: Random,
    start: float,
    step: float,
    parts: set[int],
    scale: tuple[int, ...],
    key: int,
    degree: int,
    motifs: list[list[tuple[int, int, int]]],
) -> None:
    """Add one bar of every pitched part: 0 melody, 1 second voice, 2 chords, 3 bass."""
    bar = SIXTEENTHS * step
    for part in sorted(parts & {0, 1}):
        for position, length, level in rng.choice(motifs):
            pitch = pitch_of(scale, key + 12 - 12 * part, degree + level)
            when = max(0.0, start + position * step + rng.gauss(0, 0.006))
            score.note(when, 0.92 * length * step, part, pitch, rng.randint(60, 115))
    if 2 in parts:
        chord = [pitch_of(scale, key, degree + third) for third in (0, 2, 4)]
        pulses = rng.choice((1, 1, 2, 4))
        for pulse in range(pulses):
            for pitch in chord:
                at, duration = start + pulse * bar / pulses, 0.95 * bar / pulses
                score.note(at, duration, 2, pitch, rng.randint(45, 85))
    if 3 in parts:
        beats = rng.choice((2, 4, 8))
        for beat in range(beats):
            pitch = pitch_of(scale, key - 24, degree + rng.choice((0, 0, 0, 2, 4)))
            score.note(
                start + beat * bar / beats, 0.9 * bar / beats, 3, pitch, rng.randint(70, 110)
            )
