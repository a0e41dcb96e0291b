"""Offline tasks with one label, or several, per clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..evaluation import music_pools
from ..evaluation.tasks import TASKS, Task
from .build import Built, Splits, TaskRecipe, divide, three_parts

AT_ONCE = (1, 2, 3)  # instruments in a clip
MIXTURES = {"train": 150, "valid": 40, "test": 50}
# The quality task divides whole kits; there are too few of them for folds.
DRUMS = dataclasses.replace(
    TASKS["percussion"],
    group="drum of a kit",
    select=lambda facts: (facts["drum"], facts["instrument"]),
)


def percussion(cache: Path) -> Built:
    """Kinds of drum, five folds; a drum of a kit is in one of them only."""
    waveforms, labels, groups, vocabulary = _clips(DRUMS, cache)
    folds = {f"fold{i:02d}": part for i, part in enumerate(divide(labels, groups))}
    return _multiclass(waveforms, labels, vocabulary, folds)


def letters(cache: Path) -> Built:
    """Spoken letters; a language, with its speakers, is in one split only."""
    waveforms, labels, groups, vocabulary = _clips(TASKS["letters"], cache)
    return _multiclass(waveforms, labels, vocabulary, three_parts(labels, groups))


def pitch(cache: Path) -> Built:
    """MIDI pitches of single notes; a program, of both fonts, is in one split only."""
    waveforms, labels, groups, vocabulary = _clips(TASKS["pitch"], cache, step=2)
    # Neighbouring indices are semitones, as chroma_acc takes for granted.
    vocabulary = sorted(vocabulary, key=int)
    return _multiclass(waveforms, labels, vocabulary, three_parts(labels, groups))


def instruments(cache: Path) -> Built:
    """Families of one to three instruments that play at once; programs are divided by split."""
    waveforms, labels, groups, vocabulary = _clips(TASKS["instrument"], cache)
    rng = np.random.default_rng(20261124)
    splits: Splits = {}
    for split, part in three_parts(labels, groups).items():
        by_label = {label: [i for i in part if labels[i] == label] for label in vocabulary}
        present = [label for label, found in by_label.items() if found]
        splits[split] = {}
        for number in range(MIXTURES[split]):
            chosen = rng.choice(present, size=min(rng.choice(AT_ONCE), len(present)), replace=False)
            levels = 10 ** (rng.uniform(-6, 0, len(chosen)) / 20)
            clips = [waveforms[rng.choice(by_label[label])] for label in chosen]
            mixture = sum(level * _unit(clip) for level, clip in zip(levels, clips, strict=True))
            waveform = (0.5 * _unit(mixture)).astype(np.float32)
            splits[split][f"{split}_{number:04d}.wav"] = waveform, sorted(map(str, chosen))
    return Built(vocabulary, splits)


def _clips(
    task: Task, cache: Path, step: int = 1
) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """Waveforms (n, samples), labels, groups and vocabulary of every nth clip of a quality task."""
    pool = task.recipe.pool(cache)
    data = task.data(pool)
    labels = [data.classes[index] for index in data.labels[::step]]
    groups = list(map(str, data.groups[::step]))
    return pool.waveforms[data.indices[::step]], labels, groups, list(data.classes)


def _multiclass(
    waveforms: np.ndarray,
    labels: Sequence[str],
    vocabulary: Sequence[str],
    splits: Mapping[str, Sequence[int]],
) -> Built:
    return Built(
        vocabulary,
        {
            split: {f"{split}_{i:04d}.wav": (waveforms[i], [labels[i]]) for i in part}
            for split, part in splits.items()
        },
    )


def _unit(waveform: np.ndarray) -> np.ndarray:
    return waveform / max(float(np.abs(waveform).max()), 1e-4)


RECIPES = (
    TaskRecipe(
        "percussion", "opl3-soundfont, freepats, lmms-common", TASKS["percussion"].recipe.seconds,
        ("top1_acc",), percussion, split_mode="new_split_kfold",
    ),
    TaskRecipe(
        "letters", "klettres-data", TASKS["letters"].recipe.seconds, ("top1_acc",), letters,
    ),
    TaskRecipe(
        "pitch", "opl3-soundfont, freepats", TASKS["pitch"].recipe.seconds,
        ("pitch_acc", "chroma_acc"), pitch,
    ),
    TaskRecipe(
        "instruments", "opl3-soundfont, freepats", music_pools.NOTES.seconds,
        ("mAP", "d_prime", "aucroc"), instruments, prediction_type="multilabel",
    ),
)  # fmt: skip
