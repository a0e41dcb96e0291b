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

from .pools import Clip, Recipe, fit_length, trim_start
from .sources import audio_files, source_folder
from .synthesis import VOICES, speak

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "yes",
    "no", "up", "down", "left", "right", "on", "off", "stop", "go", "water", "music",
    "open", "table",
)  # fmt: skip
STRETCHES = (0.85, 1.0, 1.2)
SYLLABLES = 40  # at most, per language
CROWD_SECONDS = 2.0
CROWD_GROUPS = 6
CROWD_CLIPS = 15  # per group and number of voices


def letters(cache: Path) -> Iterator[Clip]:
    """Letters and syllables of klettres, with their language and the text that is said."""
    root = source_folder("klettres", cache)
    for folder in sorted(path.parent for path in root.glob("*/sounds.xml")):
        texts = spoken_texts(folder / "sounds.xml")
        syllables = 0
        for path in audio_files(folder):
            kind = path.parent.name
            syllables += kind == "syllab"
            if kind == "syllab" and syllables > SYLLABLES:
                continue
            name = path.relative_to(root).as_posix()
            facts = {"language": folder.name, "kind": kind, "text": texts.get(name, path.stem)}
            yield trim_start(read_audio(path, stop=6.0)), facts


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


def words(cache: Path) -> Iterator[Clip]:
    """Common words in every English voice of flite and festival, at three speeds."""
    for name, voice in VOICES.items():
        for stretch in STRETCHES:
            for word, waveform in zip(WORDS, speak(WORDS, voice, stretch), strict=True):
                peak = max(float(np.abs(waveform).max()), 1e-4)
                facts = {"word": word, "voice": name, "speaker": voice.speaker}
                yield trim_start(waveform * np.float32(0.5 / peak)), facts


def crowds(cache: Path) -> Iterator[Clip]:
    """One to four voices of hedgewars at once; the packs of a group speak in no other group."""
    by_pack: dict[str, list[np.ndarray]] = {}
    for waveform, facts in voices(cache):
        if len(waveform) >= 8000 and np.abs(waveform).max() > 1e-3:
            by_pack.setdefault(facts["pack"], []).append(waveform)
    rng = Random("crowds")
    packs = sorted(by_pack)
    rng.shuffle(packs)
    # Mixtures need several packs in a group: every pack is in one group of at least two.
    groups = [packs[index::CROWD_GROUPS] for index in range(CROWD_GROUPS)]
    size = round(CROWD_SECONDS * 16_000)
    for index, group in enumerate(groups):
        for count in (1, 2, 3, 4):
            for _ in range(CROWD_CLIPS):
                # Distinct packs as long as there are any, then other phrases of the same ones.
                speakers = [group[i % len(group)] for i in range(count)]
                parts = [_stream(by_pack[pack], size, rng) for pack in speakers]
                mixture = np.sum(parts, axis=0)
                level = np.float32(0.5 / max(float(np.abs(mixture).max()), 1e-4))
                yield mixture * level, {"voices": str(count), "group": str(index)}


def _stream(phrases: list[np.ndarray], size: int, rng: Random) -> np.ndarray:
    """Phrases of one pack in a row, at equal power, (size,)."""
    row: list[np.ndarray] = []
    while sum(map(len, row)) < size:
        row.append(rng.choice(phrases))
    waveform = fit_length(np.concatenate(row), size)
    return waveform / np.sqrt(np.square(waveform).mean() + 1e-8)


LETTERS = Recipe("letters", 1.0, letters)
VOICES_POOL = Recipe("voices", 2.0, voices)
WORDS_POOL = Recipe("words", 1.0, words)
CROWDS = Recipe("crowds", CROWD_SECONDS, crowds)
