"""What voices read, translated texts of two Debian packages, and how a program speaks it.

`iso-codes` has names of countries, languages and currencies, `libglib2.0-data` messages of
programs: whole sentences. Both are LGPL-2.1-or-later.
"""

from __future__ import annotations

import gettext
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

import soundfile

from weights.corpus.packages import run, unpacked
from weights.corpus.rendering import Waveform

PACKAGES = ("iso-codes", "libglib2.0-data")
LINE_WORDS = 14  # about 8 s
LONGEST_SECONDS = 20.0  # a voice may spell a foreign script out
#: Locales whose translations a voice reads when its own code has none.
LOCALES = {
    "cmn": "zh_CN", "yue": "zh_HK", "hak": "zh_TW", "en-us": "en_GB", "en-gb": "en_GB",
    "pt-br": "pt_BR",
}  # fmt: skip


def texts(codes: Iterable[str], cache: Path) -> dict[str, list[str]]:
    """Texts by language code, without place-holders and markup; a list may be empty."""
    roots = [unpacked(package, cache) / "usr/share/locale" for package in PACKAGES]
    return {code: _texts(roots, LOCALES.get(code, code.split("-")[0])) for code in codes}


def _texts(roots: list[Path], locale: str) -> list[str]:
    found: set[str] = set()
    for catalogue in [file for r in roots for file in (r / locale).glob("LC_MESSAGES/*.mo")]:
        with catalogue.open("rb") as stream:
            messages = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
        found.update(
            text
            for key, text in messages.items()
            if key
            and isinstance(text, str)
            and 4 < len(text) < 160
            and not set(text) & set("%<>{}\\|_=@/\n")
        )
    return sorted(found)


def line(rng: Random, texts: list[str]) -> str:
    """Texts in random order until there are enough words for a clip."""
    chosen: list[str] = []
    # Scripts without spaces: six characters count as a word.
    while sum(max(len(t.split()), len(t) // 6) for t in chosen) < LINE_WORDS:
        chosen.append(rng.choice(texts))
    return ". ".join(chosen) + "."


def spoken(
    command: list[str], text: str, env: Mapping[str, str] | None = None
) -> tuple[Waveform, float]:
    """What a program speaks: waveform (n,), its beginning if it is long, and rate.

    Args:
        command: with "TEXT" for the file with the text, and "WAV" for the file that is written.
        text: what it reads.
        env: changes of the environment.

    Raises:
        BuildError: the program failed.
        soundfile.LibsndfileError: it wrote nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = {"TEXT": Path(scratch, "text.txt"), "WAV": Path(scratch, "spoken.wav")}
        files["TEXT"].write_text(text, encoding="utf-8")
        run([str(files.get(word, word)) for word in command], timeout=120, env=env)
        waveform, rate = soundfile.read(files["WAV"], dtype="float32")
    return waveform[: round(LONGEST_SECONDS * rate)], rate
