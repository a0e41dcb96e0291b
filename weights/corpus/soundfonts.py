"""General MIDI sound fonts out of Debian packages, and FluidSynth to play scores with them."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from random import Random

import soundfile

from weights.corpus.packages import read_csv, require, run, unpacked
from weights.corpus.rendering import Waveform

HELD_OUT = Path(__file__).resolve().parent / "held_out_samples.csv"
#: Font by Debian package; licences in sources.csv.
FONTS = {
    "fluid-soundfont-gm": "usr/share/sounds/sf2/FluidR3_GM.sf2",
    "minuet-data": "usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2",
    "denemo-data": "usr/share/sounds/sf2/A320U.sf2",
}
# FluidSynth does not filter when it plays a sample at a lower rate, so render at
# the rate of the fonts and let soxr bring it to the rate of the corpus.
RENDER_RATE = 44_100
LONGEST_PLAY = 600.0  # FluidSynth plays a note that never ends for ever


def fonts(cache: Path) -> list[Path]:
    """All fonts, downloaded if they are not in `cache`; FluidSynth must be installed.

    Samples that evaluation or reserved fonts share (`held_out_samples.csv`) are silenced.
    """
    require("fluidsynth", "fluidsynth")
    held_out: dict[str, set[str]] = {package: set() for package in FONTS}
    for row in read_csv(HELD_OUT):
        held_out[row["package"]].add(row["sample"])
    found = []
    for package, file in FONTS.items():
        target = cache / "fonts" / Path(file).name
        if not target.is_file():
            content = bytearray((unpacked(package, cache) / file).read_bytes())
            silence(content, held_out[package])
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(f".{os.getpid()}")
            part.write_bytes(content)
            part.rename(target)
        found.append(target)
    return found


def silence(font: bytearray, names: set[str]) -> int:
    """Set samples of a SoundFont 2 to zero, by their names; return how many were found."""
    pcm = font.index(b"smpl") + 8  # behind the chunk's name and size
    (size,) = struct.unpack_from("<I", font, pcm - 4)
    headers = font.index(b"shdr", pcm + size) + 8
    (length,) = struct.unpack_from("<I", font, headers - 4)
    found = 0
    for position in range(headers, headers + length, 46):
        name, start, end = struct.unpack_from("<20sII", font, position)
        if name.split(b"\0")[0].decode("latin1") in names:
            font[pcm + 2 * start : pcm + 2 * end] = bytes(2 * (end - start))
            found += 1
    return found


def play(score: Path, font: Path, rng: Random) -> tuple[Waveform, float]:
    """Play a MIDI file with a random amount of reverberation and chorus; mono."""
    with tempfile.TemporaryDirectory() as scratch:
        stereo_file = Path(scratch, "stereo.wav")
        command = ["fluidsynth", "-q", "-n", "-i", "-g", "0.4", "-r", str(RENDER_RATE)]
        command += ["-o", f"synth.reverb.level={rng.uniform(0, 0.9):.2f}"]
        command += ["-o", f"synth.reverb.room-size={rng.uniform(0.1, 0.9):.2f}"]
        command += ["-T", "wav", "-O", "s16", "-F", str(stereo_file), str(font), str(score)]
        run(command, timeout=LONGEST_PLAY)
        stereo, rate = soundfile.read(stereo_file, dtype="float32")  # (n, 2)
    return stereo.mean(axis=1), rate
