"""A small evaluation cache: unpacked packages in the layout of the real ones, filled with tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from benchmarks.evaluation.sources import SOURCES

RATE = 16_000
PACKS = ("British", "Classic", "Default", "Default_es", "Pirate", "Robot", "Surfer", "Singer")
PHRASES = ("hello", "jump1", "jump2", "ow1", "ow2", "laugh", "nooo")


def tone(frequency: float, seconds: float = 1.0, quiet: float = 0.0) -> np.ndarray:
    """A sine after some silence, (n,)."""
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)
    return np.concatenate([np.zeros(round(quiet * RATE)), wave])


def write(cache: Path, source: str, name: str, wave: np.ndarray) -> Path:
    """Put a file where the source has it."""
    path = cache / "packages" / SOURCES[source].package / SOURCES[source].folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)
    return path


def make_cache(cache: Path) -> Path:
    """All sources of recordings; the pitch of a tone tells its label, and a little its group."""
    for j, language in enumerate(("de", "en", "en_GB", "it", "nl", "ru")):
        rows = []
        for i, letter in enumerate("ABD"):
            write(cache, "klettres", f"{language}/alpha/x{i}.wav", tone(300 * (i + 1) + j))
            rows.append(f'<sound name="{letter}" file="{language}/alpha/x{i}.wav" />')
        write(cache, "klettres", f"{language}/syllab/on.wav", tone(200 + j))
        folder = cache / "packages/klettres-data" / SOURCES["klettres"].folder / language
        (folder / "sounds.xml").write_text(f"<klettres>{''.join(rows)}</klettres>")
    for j, pack in enumerate(PACKS):
        for i, phrase in enumerate(PHRASES):
            write(cache, "hedgewars", f"voices/{pack}/{phrase}.wav", tone(250 * (i + 1) + 5 * j))
    # What packs share tells nothing about who speaks.
    for pack in ("British", "Classic"):
        write(cache, "hedgewars", f"voices/{pack}/shared.wav", tone(99))
    for i in range(3):
        write(cache, "hedgewars", f"effect{i}.wav", tone(1000 + i, 1.5))
        write(cache, "hedgewars-music", f"track{i}.wav", tone(100 + i, 5.0))
    for j, folder in enumerate(("Animal", "Effects", "Human", "Music Loops")):
        for i, name in enumerate("abcdef"):
            wave = tone(300 * (j + 1) + i, 1.0 if i else 9.0, quiet=0.5)
            write(cache, "scratch", f"{folder}/{name}{i}.wav", wave)
    for code in range(1, 0x60):
        for action in "01":
            row = (code > 0x0E) + (code > 0x1C)
            name = f"{code:02x}-{action}.wav"
            write(cache, "bucklespring", name, tone(300 * (row + 1) + code, 0.3))
    for language in ("greek", "latin", "napatan", "persian"):
        for i, sex in enumerate(("female", "male")):
            for take in (1, 2):
                name = f"voice/{language}/civ/civ_{sex}_go_out_{take}.wav"
                write(cache, "0ad", name, tone(200 * (i + 1) + take))
            write(cache, "0ad", f"voice/{language}/civ/ready_{sex}.wav", tone(90))
    for i, name in enumerate(("goat", "horse_idle", "horse_select")):
        for take in range(4):
            write(cache, "0ad", f"actor/fauna/animal/{name}_{take}.wav", tone(300 * i + 90 + take))
    write(cache, "0ad", "actor/fauna/animal/lion_1.wav", tone(90))  # fewer than 4
    write(cache, "0ad", "actor/fauna/death/horse_9.wav", tone(391))  # the same as horse_idle_1
    for name in ("drums/kick01", "drums/snare_x", "drums/hihat1", "drums/zap01", "beats/beat1",
                 "bassloops/b1", "stringsnpads/s1", "effects/e1"):  # fmt: skip
        write(cache, "lmms", f"{name}.wav", tone(440, 2.0))
    return cache
