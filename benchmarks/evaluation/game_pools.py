"""Pools of 0 A.D., a game: animals, impacts, weapons and work by file name; commands by voice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from hear_msm_mae.audio import read_audio

from .pools import Clip, Recipe, trim_start
from .sources import audio_files, source_folder

EFFECT_SECONDS = 1.0
COMMAND_SECONDS = 1.5
#: Folder -> regular expression of its file names, which gives label and group.
#: Takes with the same group stay together; without one, every take is a group.
EFFECTS = {
    "actor/fauna/animal": r"(?P<label>[a-z]+?)s?_",
    "actor/fauna/death": r"(?:death_)?(?P<label>camel|goat|horse)_",
    "attack/impact": r"(?P<group>arrow|shield|sling)_(?P<label>metal|stone|wood)",
    "attack/weapon": r"(?P<label>arrowfly|bow|pike|sling|spear|swordhit|sword)",
    "resource/construction": r"(?P<label>con_[a-z]+)",
    "resource/farming": r"(?P<label>hoe)",
    "resource/foraging": r"(?P<label>leaves)",
    "resource/gathering": r"(?P<label>gather_(?:field|fruit|meat))",
    "resource/lumbering": r"(?P<label>lumber_tree)",
    "resource/mining": r"(?P<label>mine_[a-z]+)",
}


def effects(cache: Path) -> Iterator[Clip]:
    """Animals, impacts of projectiles on materials, weapons, and tools at work."""
    root, seen = source_folder("0ad", cache), set()
    for folder, pattern in EFFECTS.items():
        for path in audio_files(root / folder):
            found = re.match(pattern, path.stem)
            digest = hashlib.sha256(path.read_bytes()).digest()
            if found is None or digest in seen:
                continue
            seen.add(digest)
            try:
                waveform = read_audio(path, stop=8.0)
            except ValueError:  # six files lack pages
                continue
            yield trim_start(waveform), {"folder": folder, "take": path.stem, **found.groupdict()}


def commands(cache: Path) -> Iterator[Clip]:
    """Commands in Greek, Latin, Napatan and Persian; one woman and one man of each language."""
    root = source_folder("0ad", cache) / "voice"
    for path in audio_files(root):
        if found := re.fullmatch(r"civ_(?P<sex>female|male)_(?P<text>.+?)_\d+", path.stem):
            facts = {"language": path.parent.parent.name, **found.groupdict()}
            yield trim_start(read_audio(path, stop=8.0)), facts


EFFECTS_POOL = Recipe("0ad-effects", EFFECT_SECONDS, effects)
COMMANDS_POOL = Recipe("0ad-commands", COMMAND_SECONDS, commands)
