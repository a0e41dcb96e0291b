"""What a folder of a HEAR task looks like, as heareval reads it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METADATA = "task_metadata.json"
VOCABULARY = "labelvocabulary.csv"
TRAIN_VALID_TEST = ("train", "valid", "test")
FOLD_MODES = ("new_split_kfold", "presplit_kfold")
SPLIT_MODES = ("trainvaltest", *FOLD_MODES)
SCENE_SCORES = ("top1_acc", "pitch_acc", "chroma_acc", "mAP", "d_prime", "aucroc")
EVENT_SCORES = (
    "event_onset_200ms_fms", "event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms",
    "segment_1s_er",
)  # fmt: skip
NOT_SHARES = frozenset({"d_prime", "segment_1s_er"})  # scores that are not given in percent


@dataclass(frozen=True)
class Task:
    """A task's folder and its metadata."""

    folder: Path
    metadata: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def score(self) -> str:
        """Name of the score that counts."""
        return str(self.metadata["evaluation"][0])

    @property
    def splits(self) -> list[str]:
        return list(self.metadata["splits"])

    @property
    def training_sets(self) -> list[list[str]]:
        """Splits that the kit trains on at once, for each of its divisions."""
        if self.metadata["split_mode"] == "trainvaltest":
            return [["train"]]
        folds = sorted(self.splits)
        left_out = [{fold, folds[(i + 1) % len(folds)]} for i, fold in enumerate(folds)]
        return [[fold for fold in folds if fold not in out] for out in left_out]

    def digest(self, rate: int) -> str:
        """Fingerprint of the metadata, the labels, and the sizes of the audio files of a rate."""
        digest = hashlib.sha256()
        names = [METADATA, VOCABULARY, *(f"{split}.json" for split in self.splits)]
        for name in names:
            digest.update((self.folder / name).read_bytes())
        for split in self.splits:
            for path in sorted((self.folder / str(rate) / split).iterdir()):
                digest.update(f"{split}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()


def read_task(folder: Path) -> Task:
    """The task in a folder; nothing is checked but that the metadata are JSON."""
    return Task(folder, json.loads((folder / METADATA).read_text()))


def task_folders(tasks_dir: Path) -> list[Path]:
    """Folders that hold the metadata of a task."""
    return sorted(path for path in tasks_dir.iterdir() if (path / METADATA).is_file())


def read_vocabulary(path: Path) -> list[tuple[str, str]]:
    """(idx, label) of each row, as text.

    Raises:
        ValueError: there are no such columns.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"idx", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(f"the columns are {reader.fieldnames}, expected idx and label")
        return [(row["idx"], row["label"]) for row in reader]
