"""Folk tunes: 4 248 melodies of three old collections in ABC.

Each is played on a random instrument, with or without a drone and drums. abcmidi makes scores of
them, and FluidSynth plays these.

Rate: about 0.015 cpu-seconds a second of audio.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from random import Random

from weights.corpus import soundfonts
from weights.corpus.compose import LEADS
from weights.corpus.packages import archive, require, run
from weights.corpus.rendering import Waveform

COLLECTIONS = ("ryansMammoth", "oneills1850", "airdsAirs")
LONGEST_SECONDS = 60.0
State = tuple[list[str], list[Path]]


def setup(cache: Path) -> State:
    """The tunes and the fonts."""
    require("abc2midi", "abcmidi")
    folder = archive("music21", cache) / "music21/corpus"
    tunes: list[str] = []
    for collection in COLLECTIONS:
        for file in sorted((folder / collection).glob("*.abc")):
            text = file.read_text(encoding="latin1")
            tunes += [part for part in re.split(r"(?m)^(?=X:)", text) if part.startswith("X:")]
    return tunes, soundfonts.fonts(cache)


def clip(rng: Random, state: State) -> tuple[Waveform, float] | None:
    """A tune, one minute of it at most; None where abc2midi makes nothing of it."""
    tunes, fonts = state
    with tempfile.TemporaryDirectory() as scratch:
        text, score = Path(scratch, "tune.abc"), Path(scratch, "tune.mid")
        text.write_text(arranged(rng, rng.choice(tunes)), encoding="latin1")
        run(["abc2midi", str(text), "-o", str(score), "-silent"])
        if not score.is_file():
            return None
        waveform, rate = soundfonts.play(score, rng.choice(fonts), rng)
    return waveform[: round(LONGEST_SECONDS * rate)], rate


def arranged(rng: Random, tune: str) -> str:
    """The tune with instrument, transposition and tempo, and perhaps a drone or drums."""
    lines = [
        f"Q:1/4={rng.randint(70, 190)}",
        f"%%MIDI program {rng.choice(LEADS)}",
        f"%%MIDI transpose {rng.randint(-14, 9)}",
    ]
    if rng.random() < 0.3:
        low = rng.randint(38, 50)
        lines += [f"%%MIDI drone {rng.choice(LEADS)} {low} {low + rng.choice((7, 12))} 60 50"]
        lines += ["%%MIDI droneon"]
        tune = tune.rstrip() + "\n%%MIDI droneoff\n"
    if rng.random() < 0.2:
        lines += ["%%MIDI drum d2zd 36 42 100 60", "%%MIDI drumon"]
    # The key ends the header; what follows it applies to the notes.
    return re.sub(r"(?m)^(K:.*)$", "\\1\n" + "\n".join(lines), tune, count=1)
