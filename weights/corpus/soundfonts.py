"""General MIDI sound fonts out of Debian packages, and FluidSynth to play scores with them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import soundfile

from weights.corpus.packages import BuildError, require, run, unpacked
from weights.corpus.rendering import Waveform

#: Font by Debian package; licences in sources.csv.
FONTS = {
    "fluid-soundfont-gm": "usr/share/sounds/sf2/FluidR3_GM.sf2",
    "minuet-data": "usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2",
    "denemo-data": "usr/share/sounds/sf2/A320U.sf2",
    "csound-soundfont": "usr/share/sounds/sf2/sf_GMbank.sf2",
}
#: Kits of real drums (channel 10 only), laid over a font in a part of the pieces.
DRUM_FONTS = (
    "usr/share/sounds/sf2/Black_Pearl_4_LV2.sf2",
    "usr/share/sounds/sf2/Red_Zeppelin_4_LV2.sf2",
)
# FluidSynth does not filter when it plays a sample at a lower rate, so render at
# the rate of the fonts and let soxr bring it to the rate of the corpus.
RENDER_RATE = 44_100
LONGEST_PLAY = 600.0  # FluidSynth plays a note that never ends for ever


def fonts(cache: Path) -> list[Path]:
    """All fonts, downloaded if they are not in `cache`; FluidSynth must be installed."""
    require("fluidsynth", "fluidsynth")
    return [unpacked(package, cache) / file for package, file in FONTS.items()]


def play(score: Path, font: Path, rng: Random) -> tuple[Waveform, int]:
    """Play a MIDI file with a random amount of reverberation and chorus; mono."""
    with tempfile.TemporaryDirectory() as scratch:
        stereo_file = Path(scratch, "stereo.wav")
        command = ["fluidsynth", "-q", "-n", "-i", "-g", "0.4", "-r", str(RENDER_RATE)]
        command += ["-o", f"synth.reverb.level={rng.uniform(0, 0.9):.2f}"]
        command += ["-o", f"synth.reverb.room-size={rng.uniform(0.1, 0.9):.2f}"]
        command += ["-T", "wav", "-O", "s16", "-F", str(stereo_file), str(font), str(score)]
        run(command, timeout=LONGEST_PLAY)
        if not stereo_file.is_file():
            raise BuildError(f"FluidSynth wrote nothing for {score.name}")
        stereo, rate = soundfile.read(stereo_file, dtype="float32")  # (n, 2)
    return stereo.mean(axis=1), rate
