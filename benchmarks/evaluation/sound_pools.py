"""Pools of sounds: events by kind, keys of a keyboard, speech against music against sounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hear_msm_mae.audio import read_audio
from hear_msm_mae.config import SAMPLE_RATE

from . import speech_pools
from .pools import Clip, Recipe, Waveform, trim_start
from .sources import audio_files, source_folder

EVENT_SECONDS = 2.0
EVENT_PARTS = 3  # at most, of a long recording
KIND_SECONDS = 1.0
KIND_CLIPS = 100  # per source and folder
# Rows of a keyboard, with the last scan code (IBM PC, set 1) of each. Escape is a row of one,
# space and its neighbours are few, and codes above have no place that is known for sure.
KEY_ROWS = {
    "escape": 0x01, "digits": 0x0E, "top": 0x1C, "home": 0x29, "bottom": 0x36, "space": 0x3A,
    "function": 0x44, "keypad": 0x53,
}  # fmt: skip


def events(cache: Path) -> Iterator[Clip]:
    """Sounds of scratch by folder; long ones give up to three parts."""
    root = source_folder("scratch", cache)
    for path in audio_files(root):
        waveform = trim_start(read_audio(path, stop=EVENT_SECONDS * EVENT_PARTS + 2))
        facts = {"kind": path.parent.name, "recording": base_name(path)}
        for part in parts(waveform, EVENT_SECONDS)[:EVENT_PARTS]:
            yield part, facts


def keys(cache: Path) -> Iterator[Clip]:
    """Keys of a keyboard, pressed and released; a file is called by the scan code of its key."""
    for path in audio_files(source_folder("bucklespring", cache)):
        code, action = path.stem.split("-")
        for row, last in KEY_ROWS.items():
            if int(code, 16) <= last:
                yield trim_start(read_audio(path)), {"key": code, "action": action, "row": row}
                break


def kinds(cache: Path) -> Iterator[Clip]:
    """Speech, music and other sounds, each from several sources."""
    wanted = KIND_CLIPS
    for kind, source, folder in (
        ("music", "hedgewars-music", ""),
        ("music", "lmms", "beats"),
        ("music", "lmms", "bassloops"),
        ("music", "lmms", "stringsnpads"),
        ("music", "scratch", "Music Loops"),
        ("sound", "scratch", "Effects"),
        ("sound", "scratch", "Animal"),
        ("sound", "scratch", "Human"),
        ("sound", "lmms", "effects"),
    ):
        yield from _cut(source_folder(source, cache) / folder, kind, source, wanted)
    effects = source_folder("hedgewars", cache)
    yield from _cut(effects, "sound", "hedgewars", wanted, deep=False)
    for source, pool in (("klettres", _syllables), ("hedgewars", speech_pools.voices)):
        clips = list(pool(cache))
        for index in np.linspace(0, len(clips) - 1, wanted).astype(int):
            waveform, facts = clips[index]
            recording = f"{source}-{facts.get('language', facts.get('pack'))}"
            yield (
                parts(waveform, KIND_SECONDS)[0],
                {"kind": "speech", "source": source, "recording": recording},
            )


def _syllables(cache: Path) -> Iterator[Clip]:
    return speech_pools.klettres(cache, speech_pools.LANGUAGE_SYLLABLES)


def _cut(folder: Path, kind: str, source: str, wanted: int, deep: bool = True) -> Iterator[Clip]:
    """At most `wanted` parts of the recordings of a folder, as many of each as of any other."""
    paths = [path for path in audio_files(folder) if deep or path.parent == folder]
    per_recording = max(1, wanted // len(paths))
    for path in paths:
        waveform = trim_start(read_audio(path, stop=60.0))
        cuts = parts(waveform, KIND_SECONDS)
        chosen = np.unique(np.linspace(0, len(cuts) - 1, per_recording).astype(int))
        for index in chosen:
            recording = f"{source}-{base_name(path)}"
            yield cuts[index], {"kind": kind, "source": source, "recording": recording}


def parts(waveform: Waveform, seconds: float) -> list[Waveform]:
    """Parts of equal length without overlap; one, possibly shorter, of a short recording."""
    size = round(seconds * SAMPLE_RATE)
    return [
        waveform[start : start + size] for start in range(0, max(1, len(waveform) - size + 1), size)
    ]


def base_name(path: Path) -> str:
    """File name without number and speaker's sex: takes of one sound have the same.

    >>> base_name(Path("Laugh-male1.wav")), base_name(Path("Xylo3.mp3"))
    ('laugh', 'xylo')
    """
    return re.sub(r"(-(fe)?male)?[-_]?\d*$", "", path.stem).lower()


EVENTS = Recipe("events", EVENT_SECONDS, events)
KEYS = Recipe("keys", 0.5, keys, version=2)
KINDS = Recipe("kinds", KIND_SECONDS, kinds, version=2)
