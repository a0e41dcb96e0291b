"""Pools of notes, chords and drums: opl3 and freepats rendered, single hits of lmms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from hear_msm_mae.audio import read_audio

from .pools import Clip, Recipe, trim_start
from .sources import audio_files, source_folder
from .synthesis import Note, freepats_numbers, play

LOWEST, HIGHEST = 40, 75  # MIDI pitches, E2 to D#5
NOTES_PER_PROGRAM = 8
# Found by autocorrelation: these sound an octave or more off, or have no clear pitch.
OFF_PITCH = {
    ("opl3", "17"), ("opl3", "18"), ("opl3", "31"), ("opl3", "55"), ("opl3", "86"),
    ("freepats", "9"), ("freepats", "19"), ("freepats", "47"),
}  # fmt: skip
CHORDS = {  # in semitones above the root
    "octave": (0, 12),
    "fifth": (0, 7),
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "diminished": (0, 3, 6),
    "augmented": (0, 4, 8),
    "suspended": (0, 5, 7),
}
CHORDS_PER_PROGRAM = 2
LOWEST_ROOT, HIGHEST_ROOT = 48, 63
# General MIDI families of eight programs each; the rest are effects and sounds.
FAMILIES = (
    "piano", "chromatic-percussion", "organ", "guitar", "bass", "strings", "ensemble",
    "brass", "reed", "pipe", "synth-lead", "synth-pad",
)  # fmt: skip
# Lead and pad sounds are what a designer calls so: they tell pitch but no family.
NO_FAMILY = {"ensemble", "synth-lead", "synth-pad"}

DRUMS = {
    "kick": (35, 36),
    "snare": (38, 40),
    "clap": (39,),
    "tom": (41, 43, 45, 47, 48, 50),
    "hihat": (42, 44, 46),
    "cymbal": (49, 51, 52, 53, 55, 57, 59),
    "hand-drum": (60, 61, 62, 63, 64, 65, 66),
    "rattle": (54, 58, 69, 70, 73, 74, 82),
    "wood": (31, 37, 75, 76, 77),
    "bell": (34, 56, 67, 68, 80, 81),
}
DRUM_VELOCITIES = (60, 90, 120)
# Names of single hits of lmms by class; what none of them matches is left out.
HITS = {
    "kick": "bassdrum|kick",
    "snare": "snare",
    "clap": "clap",
    "tom": "tom",
    "hihat": "hihat",
    "cymbal": "crash|ride",
    "rattle": "shaker",
    "wood": "rim|sidestick|wood|clav",
}


def notes(cache: Path) -> Iterator[Clip]:
    """Eight notes, at random, of every program of a family that the two fonts have."""
    for font, program in programs(cache, range(8 * len(FAMILIES))):
        rng = Random(f"{font}-{program}")
        pitches = rng.sample(range(LOWEST, HIGHEST + 1), NOTES_PER_PROGRAM)
        played = [Note((pitch,), rng.randint(70, 120), 0.8) for pitch in pitches]
        waveforms = play(played, program, font, cache, spacing=2.0)
        for pitch, waveform in zip(pitches, waveforms, strict=True):
            facts = {"font": font, "program": str(program), "family": FAMILIES[program // 8]}
            yield waveform, {**facts, "pitch": str(pitch)}


def chords(cache: Path) -> Iterator[Clip]:
    """Two chords of every kind, at random pitch, of every second pitched program."""
    for font, program in programs(cache, range(0, 8 * FAMILIES.index("synth-lead"), 2)):
        rng = Random(f"chords-{font}-{program}")
        kinds = [kind for kind in CHORDS for _ in range(CHORDS_PER_PROGRAM)]
        roots = [rng.randint(LOWEST_ROOT, HIGHEST_ROOT) for _ in kinds]
        played = [
            Note(tuple(root + step for step in CHORDS[kind]), rng.randint(70, 120), 0.8)
            for kind, root in zip(kinds, roots, strict=True)
        ]
        for kind, waveform in zip(kinds, play(played, program, font, cache, 2.0), strict=True):
            yield waveform, {"font": font, "program": str(program), "chord": kind}


def programs(cache: Path, numbers: range) -> Iterator[tuple[str, int]]:
    """(font, program) of those of the General MIDI programs that each font has."""
    recorded = freepats_numbers("Tone_000", cache)
    yield from (("opl3", program) for program in numbers)
    yield from (("freepats", program) for program in numbers if program in recorded)


def drums(cache: Path) -> Iterator[Clip]:
    """Drums of the two fonts at three velocities, and the single hits of lmms."""
    recorded = freepats_numbers("Drum_000", cache)
    classes = {key: name for name, keys in DRUMS.items() for key in keys}
    for font in ("opl3", "freepats"):
        keys = [key for key in sorted(classes) if font == "opl3" or key in recorded]
        played = [Note((key,), velocity, 0.3) for key in keys for velocity in DRUM_VELOCITIES]
        for note, waveform in zip(played, play(played, None, font, cache, 1.5), strict=True):
            key = note.pitches[0]
            group = f"{font}-{key}"
            yield waveform, {"drum": classes[key], "kit": font, "instrument": group}
    yield from hits(cache)


def hits(cache: Path) -> Iterator[Clip]:
    """The single hits of lmms, which are recordings or samples of drum machines."""
    for path in audio_files(source_folder("lmms", cache) / "drums"):
        for drum, pattern in HITS.items():
            if re.search(pattern, path.stem):
                facts = {"drum": drum, "kit": "lmms", "instrument": f"lmms-{path.stem}"}
                yield trim_start(read_audio(path, stop=4.0)), facts
                break


NOTES = Recipe("notes", 1.0, notes, version=2)
CHORDS_POOL = Recipe("chords", 1.0, chords)
DRUMS_POOL = Recipe("drums", 1.0, drums)
HITS_POOL = Recipe("hits", 1.0, hits)
