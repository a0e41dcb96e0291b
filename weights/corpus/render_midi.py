"""General MIDI: notes and chords of every program, drum kits, drum loops and whole pieces.

Rate: about 0.02 cpu-seconds a second of audio.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from weights.corpus import compose, soundfonts
from weights.corpus.rendering import Waveform

PROGRAMS = 128


def setup(cache: Path) -> list[Path]:
    """The fonts."""
    return soundfonts.fonts(cache)


def clip(rng: Random, fonts: list[Path]) -> tuple[Waveform, int] | None:
    """A score of one of the four sorts, 45 to 90 s, played with one of the fonts."""
    make = rng.choices(
        (
            lambda: compose.notes(rng.randrange(PROGRAMS), rng),
            lambda: compose.drum_hits(rng.choice(compose.DRUM_KITS), rng),
            lambda: compose.drum_loop(rng, 45.0),
            lambda: compose.piece(rng, 85.0),
        ),
        (0.45, 0.05, 0.15, 0.35),
    )[0]
    with tempfile.TemporaryDirectory() as scratch:
        score = Path(scratch, "score.mid")
        make().write(score)
        return soundfonts.play(score, rng.choice(fonts), rng)
