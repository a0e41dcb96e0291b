"""Bands: accompaniments of MMA (some 2 000 grooves) with chords and melodies of our own.

Rate: about 0.02 cpu-seconds a second of audio, most of it FluidSynth.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from random import Random

from weights.corpus import soundfonts
from weights.corpus.compose import SCALES
from weights.corpus.packages import run, unpacked
from weights.corpus.rendering import Waveform

BARS = 24
NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
QUALITIES = ("", "", "", "m", "m", "7", "7", "m7", "maj7", "dim", "sus4", "6", "9", "m7b5")
LETTERS = ("c", "c#", "d", "eb", "e", "f", "f#", "g", "ab", "a", "bb", "b")
SOLO_VOICES = (
    "Violin", "Flute", "Clarinet", "Trumpet", "AltoSax", "Oboe", "Piano1", "Vibraphone", "Cello",
    "Accordion", "JazzGuitar", "MutedTrumpet", "Harmonica", "TenorSax", "PanFlute", "Organ1",
)  # fmt: skip
State = tuple[Path, list[str], list[Path]]


def setup(cache: Path) -> State:
    """MMA's folder, the names of its grooves, and the fonts."""
    folder = unpacked("mma", cache)
    home = folder / "usr/share/mma"
    if not (home / "plugins").is_dir():  # MMA refuses to start without it
        (home / "plugins").mkdir()
        mma(folder, "-G")  # writes the index of grooves once
    names = []
    for file in sorted((home / "lib/stdlib").glob("*.mma")):
        text = file.read_text(encoding="latin1")
        names += re.findall(r"^\s*DefGroove\s+(\S+)", text, re.M | re.I)
    return folder, names, soundfonts.fonts(cache)


def mma(folder: Path, *arguments: str) -> None:
    """Run MMA out of its unpacked package."""
    home = {"MMA_HOME": str(folder / "usr/share/mma"), "HOME": str(folder)}
    run([sys.executable, str(folder / "usr/bin/mma"), *arguments], cwd=folder, env=home)


def clip(rng: Random, state: State) -> tuple[Waveform, float]:
    """A piece of 24 bars in one or two grooves."""
    folder, grooves, fonts = state
    with tempfile.TemporaryDirectory() as scratch:
        text, score = Path(scratch, "piece.mma"), Path(scratch, "piece.mid")
        text.write_text(piece(rng, grooves))
        mma(folder, "-f", str(score), str(text))
        return soundfonts.play(score, rng.choice(fonts), rng)


def piece(rng: Random, grooves: list[str]) -> str:
    """The piece in MMA's language."""
    key, scale = rng.randrange(12), rng.choice(SCALES)
    lines = [f"Tempo {rng.randint(60, 190)}", f"Groove {rng.choice(grooves)}"]
    melody = rng.random() < 0.7
    if melody:
        lines += [f"Solo Voice {rng.choice(SOLO_VOICES)}", f"Solo Octave {rng.randint(4, 6)}"]
        lines += [f"Solo Volume {rng.choice(('m', 'mf', 'f'))}", "Solo Articulate 90"]
    length = rng.choice((2, 4, 4, 8))
    roots = [NAMES[(key + rng.choice(scale)) % 12] for _ in range(length)]
    progression = [root + rng.choice(QUALITIES) for root in roots]
    for bar in range(BARS):
        if bar == BARS // 2 and rng.random() < 0.5:
            lines.append(f"Groove {rng.choice(grooves)}")
        if melody and rng.random() < 0.85:
            lines.append(f"Solo Riff {riff(rng, key, scale)}")
        lines.append(f"{bar + 1} {progression[bar % length]}")
    return "\n".join(lines) + "\n"


def riff(rng: Random, key: int, scale: tuple[int, ...]) -> str:
    """Notes of three beats at most, which fit into a bar of every groove."""
    notes, left, step = [], 3.0, rng.randrange(len(scale))
    while left >= 0.5:
        length = rng.choice([beats for beats in (0.5, 0.5, 1.0, 1.0, 2.0) if beats <= left])
        step += rng.choice((-2, -1, -1, 1, 1, 2))
        pitch = key + scale[step % len(scale)]
        octave = "+" * (pitch // 12 + (step // len(scale) > 0))
        notes.append(f"{round(4 / length)}{LETTERS[pitch % 12]}{octave}")
        left -= length
    return ";".join(notes) + ";"
