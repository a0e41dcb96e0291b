"""Speech and notes from the evaluation packages' synthesisers: flite, festival, opl3, freepats.

The programs `flite`, `festival`, `fluidsynth` and `timidity` have to be installed, with the
festival voices of `VOICES`; what they render is deterministic.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hear_msm_mae.audio import read_audio
from weights.corpus import packages
from weights.corpus.midi import DRUM_CHANNEL, Score
from weights.corpus.packages import BuildError

from .pools import Waveform
from .sources import package_folder, source_folder

# Neither fluidsynth nor timidity filters well at a lower rate; soxr does it afterwards.
RENDER_RATE = 44_100  # Hz


# ---------------------------------------------------------------------------------------------
# Speech
# ---------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser; voices of one speaker were made from the same person."""

    engine: str
    name: str
    speaker: str
    package: str


#: English voices by a short name.
VOICES = {
    "flite-kal": Voice("flite", "kal16", "kal", "flite"),
    "flite-awb": Voice("flite", "awb", "awb", "flite"),
    "flite-rms": Voice("flite", "rms", "rms", "flite"),
    "flite-slt": Voice("flite", "slt", "slt", "flite"),
    "festival-kal": Voice("festival", "kal_diphone", "kal", "festvox-kallpc16k"),
    "festival-ked": Voice("festival", "ked_diphone", "ked", "festvox-kdlpc16k"),
    "festival-slt": Voice("festival", "cmu_us_slt_arctic_hts", "slt", "festvox-us-slt-hts"),
}


def speak(texts: Sequence[str], voice: Voice, stretch: float = 1.0) -> list[Waveform]:
    """Say English texts; returns (n,) float32 at 16 kHz for each, longer by the factor `stretch`.

    Raises:
        BuildError: the synthesiser or the voice is missing, or fails.
    """
    say = {"flite": _flite, "festival": _festival}[voice.engine]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{index}.wav") for index in range(len(texts))]
        say(texts, voice, stretch, files)
        if missing := [t for t, f in zip(texts, files, strict=True) if not f.is_file()]:
            raise BuildError(
                f"{voice.engine} did not say {missing[0]!r} with {voice.name}; is the voice "
                f"installed? `apt-get install {voice.package}`"
            )
        return [read_audio(path) for path in files]


def _flite(texts: Sequence[str], voice: Voice, stretch: float, files: Sequence[Path]) -> None:
    flite = packages.require("flite", "flite")
    for text, file in zip(texts, files, strict=True):
        options = ["-voice", voice.name, "--setf", f"duration_stretch={stretch}"]
        packages.run([flite, *options, "-t", text, "-o", str(file)])


def _festival(texts: Sequence[str], voice: Voice, stretch: float, files: Sequence[Path]) -> None:
    festival = packages.require("festival", "festival")
    lines = [f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {stretch})"]
    for text, file in zip(texts, files, strict=True):
        lines.append(f'(utt.save.wave (SynthText "{text}") "{file}")')
    script = files[0].with_suffix(".scm")
    script.write_text("\n".join(lines) + "\n")
    packages.run([festival, "-b", str(script)])


# ---------------------------------------------------------------------------------------------
# Notes
# ---------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Note:
    """Keys of an instrument, struck at once: MIDI pitches and velocity (0 to 127), held."""

    pitches: tuple[int, ...]
    velocity: int
    seconds: float


def play(
    notes: Sequence[Note], program: int | None, font: str, cache: Path, spacing: float
) -> list[Waveform]:
    """Play notes one after the other, and cut them apart.

    Args:
        notes: what to play.
        program: General MIDI program, 0 to 127, or None for the drum kit (pitches are drums).
        font: "opl3" or "freepats".
        cache: folder of the evaluation sources.
        spacing: seconds from the start of a note to the start of the next one.

    Returns:
        (16000 * spacing,) float32 for each note; the loudest sample of all is 0.7.

    Raises:
        BuildError: the synthesiser is missing or fails, or everything is silent.
    """
    score = Score()
    channel = DRUM_CHANNEL if program is None else 0
    for number in (91, 93):  # no reverb, no chorus: they would reach into the next note
        score.control(0.0, channel, number, 0)
    if program is not None:
        score.program(0.0, channel, program)
    lead = 0.1  # s, for the messages above
    for index, note in enumerate(notes):
        start = lead + index * spacing
        for pitch in note.pitches:
            score.note(start, note.seconds, channel, pitch, note.velocity)
    score.end(lead + len(notes) * spacing + 1.0)
    with tempfile.TemporaryDirectory() as folder:
        midi, rendered = Path(folder, "score.mid"), Path(folder, "rendered.wav")
        score.write(midi)
        packages.run(_player(font, cache, midi, rendered))
        waveform = read_audio(rendered)
    peak = float(np.abs(waveform).max())
    if peak < 1e-4:
        raise BuildError(f"{font} rendered silence for program {program}")
    size, first = round(16_000 * spacing), round(16_000 * lead)
    waveform = np.pad(waveform, (0, max(0, first + len(notes) * size - len(waveform))))
    return [
        waveform[first + index * size :][:size] * np.float32(0.7 / peak)
        for index in range(len(notes))
    ]


def _player(font: str, cache: Path, midi: Path, rendered: Path) -> list[str]:
    """The command that renders a MIDI file."""
    rate = str(RENDER_RATE)
    if font == "opl3":
        [sound_font] = source_folder("opl3", cache).glob("*.sf2")
        fluidsynth = packages.require("fluidsynth", "fluidsynth")
        command = [fluidsynth, "-q", "-n", "-i", "-g", "0.4", "-R", "0", "-C", "0", "-r", rate]
        return [*command, "-T", "wav", "-F", str(rendered), str(sound_font), str(midi)]
    timidity = packages.require("timidity", "timidity")
    patches = source_folder("freepats", cache)
    settings = midi.with_suffix(".cfg")
    table = package_folder("freepats", cache) / "etc/timidity/freepats.cfg"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("dir ")]
    settings.write_text("\n".join([f"dir {patches}", *lines, ""]))
    command = [timidity, "-c", str(settings), "-Ow", "-s", rate, "--output-mono"]
    command += ["-EFreverb=0", "-EFchorus=0", "-EFdelay=0", "--quiet=2"]
    return [*command, "-o", str(rendered), str(midi)]


def freepats_numbers(folder: str, cache: Path) -> dict[int, str]:
    """Programs ("Tone_000") or drums ("Drum_000") that freepats has, with their names."""
    patches = sorted((source_folder("freepats", cache) / folder).glob("*.pat"))
    return {int(path.stem[:3]): path.stem[4:] for path in patches}
