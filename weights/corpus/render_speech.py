"""Speech of eSpeak NG in all its languages and voice variants.

Every language speaks its translated texts, numbers and letters, which eSpeak reads out in the
language. eSpeak 1.51 crashes for a few voices with a few variants: those clips are left out.
Rate: about 0.002 cpu-seconds a second of audio.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from weights.corpus.packages import BuildError, require, run
from weights.corpus.rendering import Waveform
from weights.corpus.texts import line, spoken, texts

#: Voices (language code, file), names of variants ("f3", "whisper"), texts by language code.
State = tuple[list[tuple[str, str]], list[str], dict[str, list[str]]]


def setup(cache: Path) -> State:
    """ESpeak's voices and variants, and the texts of every language; MBROLA's are left out."""
    require("espeak-ng", "espeak-ng")
    table = [row.split() for row in run(["espeak-ng", "--voices"]).splitlines()[1:]]
    voices = sorted({(r[1], r[4]) for r in table if len(r) > 4 and not r[4].startswith("mb/")})
    table = [row.split("!v/") for row in run(["espeak-ng", "--voices=variant"]).splitlines()]
    variants = sorted({row[1].split()[0] for row in table if len(row) > 1})
    if not voices or not variants:
        raise BuildError("espeak-ng lists no voices: install `espeak-ng-data`")
    return voices, variants, texts({code for code, _ in voices}, cache)


def clip(rng: Random, state: State) -> tuple[Waveform, float]:
    """A line in one of the languages, by one of the variants."""
    voices, variants, texts = state
    code, voice = rng.choice(voices)
    # Mostly texts where the language has some, otherwise numbers and letters.
    lines = [line] * 4 if len(texts[code]) >= 20 else []
    text = rng.choice([*lines, number_line, letter_line])(rng, texts[code])
    if rng.random() < 0.85:
        voice += f"+{rng.choice(variants)}"
    command = ["espeak-ng", "-v", voice, "-p", str(rng.randint(15, 85))]
    command += ["-s", str(rng.randint(115, 220)), "-g", str(rng.choice((0, 0, 2, 5)))]
    return spoken([*command, "-w", "WAV", "-f", "TEXT"], text)


def number_line(rng: Random, _: list[str]) -> str:
    """Numbers of one to six digits."""
    return ", ".join(str(rng.randint(0, 10 ** rng.randint(1, 6))) for _ in range(6)) + "."


def letter_line(rng: Random, texts: list[str]) -> str:
    """Letters of the language's script, as far as its texts show them."""
    letters = sorted({c for text in texts for c in text.lower() if c.isalpha()})
    return ", ".join(rng.choice(letters or list("abcdefghijklmnopqrstuvwxyz")) for _ in range(9))
