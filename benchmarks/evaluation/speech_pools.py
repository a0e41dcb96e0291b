"""Pools of speech: letters and syllables, voice packs, synthetic words, voices at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np

from hear_msm_mae.audio import read_audio
from hear_msm_mae.config import SAMPLE_RATE

from .pools import Clip, Recipe, Waveform, fit_length, trim_start
from .sources import audio_files, source_folder
from .synthesis import VOICES, speak

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "yes",
    "no", "up", "down", "left", "right", "on", "off", "stop", "go", "water", "music",
    "open", "table",
)  # fmt: skip
STRETCHES = (0.85, 1.0, 1.2)
LETTER_SECONDS = 1.0
LANGUAGE_SYLLABLES = 20  # per language, at most
LATIN = frozenset(
    ["cs", "da", "de", "en", "en_GB", "es", "fr", "hu", "it", "lt", "nb", "nds", "nl", "pt_BR"]
)
CROWD_SECONDS = 2.0
CROWD_VOICES = (1, 2, 3)
CROWD_GROUPS = 3  # of the ten casts: each has as many as there are voices at once, or more
CROWD_CLIPS = 40  # per group and number of voices


def klettres(cache: Path, syllables: int) -> Iterator[Clip]:
    """Letters and some syllables of every language, with the text that is said."""
    root = source_folder("klettres", cache)
    for folder in sorted(path.parent for path in root.glob("*/sounds.xml")):
        texts = spoken_texts(folder / "sounds.xml")
        paths = [(kind, audio_files(folder / kind)) for kind in ("alpha", "syllab")]
        for kind, found in paths:
            for path in found if kind == "alpha" else found[:syllables]:
                name = path.relative_to(root).as_posix()
                facts = {"language": folder.name, "kind": kind, "text": texts.get(name, path.stem)}
                yield trim_start(read_audio(path, stop=6.0)), facts


def letters(cache: Path) -> Iterator[Clip]:
    """Letters of the languages that use the Latin script."""
    for waveform, facts in klettres(cache, syllables=0):
        if facts["language"] in LATIN:
            yield waveform, facts


def languages(cache: Path) -> Iterator[Clip]:
    """Letters and syllables, disguised: noise, tone and level are drawn anew for every clip.

    Without that a probe needs no more than the hum and the microphone of each recording place.
    """
    rng = np.random.default_rng(20261124)
    size = round(LETTER_SECONDS * SAMPLE_RATE)
    for waveform, facts in klettres(cache, syllables=LANGUAGE_SYLLABLES):
        yield disguised(fit_length(waveform, size), rng), facts


def disguised(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Tilt the spectrum by up to 6 dB per octave, add noise 20 dB below, change the level."""
    n = len(waveform)
    kilohertz = (np.fft.rfftfreq(n, 1 / SAMPLE_RATE) + 50) / 1000
    tilt = kilohertz ** (rng.uniform(-6, 6) / (20 * np.log10(2)))
    speech = np.fft.irfft(np.fft.rfft(waveform) * tilt, n)
    colour = kilohertz ** rng.uniform(-0.5, 0)  # white to pink
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * colour, n)
    mixture = speech / (speech.std() + 1e-6) + 0.1 * noise / noise.std()
    return (mixture * 0.05 * 10 ** (rng.uniform(-6, 6) / 20)).astype(np.float32)


def spoken_texts(table: Path) -> dict[str, str]:
    """What is said in which file, in lower case, from a sounds.xml of klettres."""
    sounds = ElementTree.parse(table).iter("sound")
    return {sound.get("file", ""): sound.get("name", "").lower() for sound in sounds}


def voices(cache: Path) -> Iterator[Clip]:
    """Phrases of the voice packs of hedgewars; what several packs share is left out."""
    root = source_folder("hedgewars", cache) / "voices"
    paths = audio_files(root)
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    shared = Counter(digests.values())
    for path in paths:
        if shared[digests[path]] == 1:
            facts = {"pack": path.parent.name, "phrase": path.stem.lower()}
            yield trim_start(read_audio(path, stop=8.0)), facts


def cast(pack: str) -> str:
    """Packs that may share actors have the same: translations are called after their original.

    >>> cast("Default_es")
    'Default'
    """
    return pack.split("_")[0]


def words(cache: Path) -> Iterator[Clip]:
    """Common words in every English voice of flite and festival, at three speeds."""
    for name, voice in VOICES.items():
        for stretch in STRETCHES:
            for word, waveform in zip(WORDS, speak(WORDS, voice, stretch), strict=True):
                peak = max(float(np.abs(waveform).max()), 1e-4)
                facts = {"word": word, "voice": name, "speaker": voice.speaker}
                yield trim_start(waveform * np.float32(0.5 / peak)), facts


def crowds(cache: Path) -> Iterator[Clip]:
    """One to three voices of hedgewars at once; the casts of a group speak in no other group.

    Each voice of a clip is of another cast, as packs of the same one may share actors.
    """
    by_pack: dict[str, list[Waveform]] = {}
    for waveform, facts in voices(cache):
        if len(waveform) >= SAMPLE_RATE // 2 and np.abs(waveform).max() > 1e-3:
            by_pack.setdefault(facts["pack"], []).append(waveform)
    by_cast: dict[str, list[str]] = {}
    for pack in sorted(by_pack):
        by_cast.setdefault(cast(pack), []).append(pack)
    rng = Random("crowds")
    casts = sorted(by_cast)
    rng.shuffle(casts)
    size = round(CROWD_SECONDS * SAMPLE_RATE)
    for index in range(CROWD_GROUPS):
        group = casts[index::CROWD_GROUPS]
        for count in CROWD_VOICES:
            for _ in range(CROWD_CLIPS):
                packs = [rng.choice(by_cast[name]) for name in rng.sample(group, count)]
                mixture = np.sum([_stream(by_pack[pack], size, rng) for pack in packs], axis=0)
                level = np.float32(0.5 / max(float(np.abs(mixture).max()), 1e-4))
                yield mixture * level, {"voices": str(count), "group": str(index)}


def _stream(phrases: list[Waveform], size: int, rng: Random) -> Waveform:
    """Phrases of one pack in a row, at equal power, (size,)."""
    row: list[Waveform] = []
    while sum(map(len, row)) < size:
        row.append(rng.choice(phrases))
    waveform = fit_length(np.concatenate(row), size)
    return waveform / np.sqrt(np.square(waveform).mean() + 1e-8)


LETTERS = Recipe("letters", LETTER_SECONDS, letters, version=2)
LANGUAGES = Recipe("languages", LETTER_SECONDS, languages)
VOICES_POOL = Recipe("voices", 2.0, voices)
WORDS_POOL = Recipe("words", 1.0, words)
CROWDS = Recipe("crowds", CROWD_SECONDS, crowds, version=3)
