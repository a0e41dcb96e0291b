"""What a folder of a HEAR task looks like, as hear-eval-kit reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kit import HearError

METADATA = "task_metadata.json"
VOCABULARY = "labelvocabulary.csv"
TRAIN_VALID_TEST = ("train", "valid", "test")


@dataclass(frozen=True)
class Task:
    """A task's folder and its metadata."""

    folder: Path
    metadata: Mapping[str, Any]

    @property
    def splits(self) -> list[str]:
        """Names of the splits, or of the folds."""
        return list(self.metadata["splits"])

    def digest(self, rate: int) -> str:
        """Fingerprint of the metadata, the labels, and the sizes of the audio files of a rate."""
        digest = hashlib.sha256()
        for name in (METADATA, VOCABULARY, *(f"{split}.json" for split in self.splits)):
            digest.update((self.folder / name).read_bytes())
        for split in self.splits:
            for path in sorted((self.folder / str(rate) / split).iterdir()):
                digest.update(f"{split}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()


def read_task(folder: Path) -> Task:
    """The task in a folder; nothing is checked but that the metadata are JSON."""
    return Task(folder, json.loads((folder / METADATA).read_text(encoding="utf-8")))


def task_folders(tasks_dir: Path, names: tuple[str, ...] | None = None) -> list[Path]:
    """Folders that hold the metadata of a task, all of them or those of some names.

    Raises:
        HearError: there is no task, or not one of the names.
    """
    found = {path.parent.name: path.parent for path in sorted(tasks_dir.glob(f"*/{METADATA}"))}
    if not found:
        raise HearError(f"{tasks_dir} holds no task, that is, no folder with {METADATA}")
    if missing := set(names or ()) - set(found):
        has = ", ".join(found)
        raise HearError(f"{tasks_dir} has no task {', '.join(missing)}; it has {has}")
    return [folder for name, folder in found.items() if name in (names or found)]
