"""General MIDI music, single notes and drums, rendered with FluidSynth: about 5 hours."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import soxr

from weights.corpus import compose
from weights.corpus.midi import Score
from weights.corpus.packages import BuildError, require, run

log = logging.getLogger(__name__)
SEED = 20261124
SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
# FluidSynth does not filter when it plays a sample at a lower rate, so render at
# the rate of the font and let soxr bring it to the rate of the corpus.
RENDER_RATE = 44_100
SAMPLE_RATE = 16_000
PROGRAMS = 128
DRUM_LOOPS = 40  # of about 50 s
PIECES = 100  # of about 90 s


def scores() -> Iterator[tuple[str, Score]]:
    """All scores with their file stems, in a fixed order; each has a seed of its own."""
    for program in range(PROGRAMS):
        stem = f"notes/program{program:03d}"
        yield stem, compose.notes(program, rng_for(stem))
    for kit in compose.DRUM_KITS:
        stem = f"drums/kit{kit:03d}"
        yield stem, compose.drum_hits(kit, rng_for(stem))
    for index in range(DRUM_LOOPS):
        stem = f"drums/loop{index:03d}"
        yield stem, compose.drum_loop(rng_for(stem), 45.0)
    for index in range(PIECES):
        stem = f"pieces/piece{index:03d}"
        yield stem, compose.piece(rng_for(stem), 85.0)


def rng_for(stem: str) -> Random:
    """A generator that depends on the name only: adding scores changes no other score."""
    return Random(f"{SEED}/{stem}")


def render(score: Score, font: Path, target: Path) -> None:
    """Render a score to a mono 16 kHz FLAC file whose peak is 0.7 of full scale."""
    with tempfile.TemporaryDirectory() as scratch:
        midi_file, stereo_file = Path(scratch, "score.mid"), Path(scratch, "stereo.wav")
        score.write(midi_file)
        run(
            [
                "fluidsynth",
                "-q",
                "-n",
                "-i",
                "-g",
                "0.4",
                "-r",
                str(RENDER_RATE),
                "-T",
                "wav",
                "-O",
                "s16",
                "-F",
                str(stereo_file),
                str(font),
                str(midi_file),
            ]
        )
        stereo, rate = soundfile.read(stereo_file, dtype="float32")  # (n, 2)
    mono = soxr.resample(stereo.mean(axis=1), rate, SAMPLE_RATE)  # (n,)
    peak = float(np.abs(mono).max())
    if peak < 1e-4:
        raise BuildError(f"FluidSynth rendered silence for {target.stem}")
    target.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(target, mono * (0.7 / peak), SAMPLE_RATE, subtype="PCM_16")


def render_all(folder: Path) -> str:
    """Render every score into `folder`; return the versions of synthesiser and font."""
    require("fluidsynth", "fluidsynth")
    if not SOUND_FONT.is_file():
        raise BuildError("no sound font: install it with `apt-get install fluid-soundfont-gm`")
    for count, (stem, score) in enumerate(scores()):
        render(score, SOUND_FONT, folder / f"{stem}.flac")
        if count % 50 == 49:
            log.info("general-midi: %d scores rendered", count + 1)
    return installed_version("fluid-soundfont-gm")


def installed_version(package: str) -> str:
    """Version of an installed Debian package."""
    require("dpkg-query", "dpkg")
    return run(["dpkg-query", "-W", "-f", "${Version}", package]).strip()
