"""Pools of notes and drums: opl3 and freepats through synthesisers, single hits of lmms."""

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
NOTES_PER_PROGRAM = 12
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
    """Twelve notes, at random, of every pitched program that the two fonts have."""
    recorded = freepats_numbers("Tone_000", cache)
    for font in ("opl3", "freepats"):
        for program in range(8 * len(FAMILIES)):
            if font == "freepats" and program not in recorded:
                continue
            rng = Random(f"{font}-{program}")
            pitches = rng.sample(range(LOWEST, HIGHEST + 1), NOTES_PER_PROGRAM)
            played = [Note(pitch, rng.randint(70, 120), 0.8) for pitch in pitches]
            waveforms = play(played, program, font, cache, spacing=2.0)
            for note, waveform in zip(played, waveforms, strict=True):
                yield (
                    waveform,
                    {
                        "font": font,
                        "program": str(program),
                        "family": FAMILIES[program // 8],
                        "pitch": str(note.pitch),
                    },
                )


def drums(cache: Path) -> Iterator[Clip]:
    """Drums of the two fonts at three velocities, and the single hits of lmms."""
    recorded = freepats_numbers("Drum_000", cache)
    classes = {key: name for name, keys in DRUMS.items() for key in keys}
    for font in ("opl3", "freepats"):
        keys = [key for key in sorted(classes) if font == "opl3" or key in recorded]
        played = [Note(key, velocity, 0.3) for key in keys for velocity in DRUM_VELOCITIES]
        for note, waveform in zip(played, play(played, None, font, cache, 1.5), strict=True):
            group = f"{font}-{note.pitch}"
            yield waveform, {"drum": classes[note.pitch], "kit": font, "instrument": group}
    for path in audio_files(source_folder("lmms", cache) / "drums"):
        for drum, pattern in HITS.items():
            if re.search(pattern, path.stem):
                facts = {"drum": drum, "kit": "lmms", "instrument": f"lmms-{path.stem}"}
                yield trim_start(read_audio(path, stop=4.0)), facts
                break


NOTES = Recipe("notes", 1.0, notes)
DRUMS_POOL = Recipe("drums", 1.0, drums)
