"""Build offline tasks: small ones in HEAR's format, from the evaluation sources."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from hear_msm_mae.config import SAMPLE_RATE
from weights.corpus.packages import BuildError, sha256

from .tasks_format import METADATA, TRAIN_VALID_TEST, VOCABULARY

log = logging.getLogger("hear")

MANIFEST = "MANIFEST.sha256"
FOLDS = 5
# One point of the kit's grid instead of the one that its shuffling happens to put first.
QUICK_TRAINING = {
    "hidden_layers": [1], "lr": [1e-3], "max_epochs": [50], "check_val_every_n_epoch": [5],
}  # fmt: skip
Waveform = NDArray[np.float32]  # (n,) at 16 kHz
Labels = list[Any]  # labels of a scene, or events


@dataclass(frozen=True)
class Built:
    """A task's content: audio and labels by split and file name."""

    vocabulary: Sequence[str]
    audio: Mapping[str, Mapping[str, Waveform]]
    labels: Mapping[str, Mapping[str, Labels]]


@dataclass(frozen=True)
class TaskRecipe:
    """A task and how it is built from the evaluation sources in a cache folder."""

    name: str
    sources: str
    seconds: float
    evaluation: Sequence[str]
    build: Callable[[Path], Built]
    embedding_type: str = "scene"
    prediction_type: str = "multiclass"
    split_mode: str = "trainvaltest"
    version: str = "v1"
    mode: str = "offline"
    evaluation_params: Mapping[str, Any] = field(
        default_factory=lambda: {"task_specific_param_grid": QUICK_TRAINING}
    )

    @property
    def folder(self) -> str:
        """Name of the task's folder, as HEAR has it."""
        return f"{self.name}-{self.version}-{self.mode}"


def build(
    recipes: Iterable[TaskRecipe],
    out: Path,
    cache: Path,
    rates: Sequence[int] = (SAMPLE_RATE,),
    small: bool = False,
) -> None:
    """Build tasks into `out`, each replacing a folder of its name.

    Args:
        recipes: of the tasks.
        out: the tasks folder.
        cache: of the evaluation sources, which are fetched if they are not there.
        rates: sample rates; the sounds are made at 16 kHz, and resampled for others.
        small: a quarter of the clips, in folders of mode "tiny".

    Raises:
        BuildError: a source cannot be had, or a synthesiser is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        built = recipe.build(cache)
        if small:
            recipe, built = dataclasses.replace(recipe, mode="tiny"), quarter(built)
        write_task(out / recipe.folder, recipe, built, rates)
        seconds = sum(len(c) for clips in built.audio.values() for c in clips.values())
        count = sum(map(len, built.audio.values()))
        log.info("%s: %d clips, %.1f min", recipe.folder, count, seconds / SAMPLE_RATE / 60)


def write_task(folder: Path, recipe: TaskRecipe, built: Built, rates: Sequence[int]) -> None:
    """Write a task beside its place and move it there, with the digests of all its files."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for split, clips in built.audio.items():
        for rate in rates:
            target = part / str(rate) / split
            target.mkdir(parents=True)
            for name, waveform in clips.items():
                if rate != SAMPLE_RATE:
                    waveform = soxr.resample(waveform, SAMPLE_RATE, rate)
                soundfile.write(target / name, waveform, rate, subtype="PCM_16")
        (part / f"{split}.json").write_text(json.dumps(built.labels[split], indent=1))
    rows = [f"{index},{label}" for index, label in enumerate(built.vocabulary)]
    (part / VOCABULARY).write_text("\n".join(["idx,label", *rows, ""]))
    metadata = {
        "task_name": recipe.name,
        "version": recipe.version,
        "mode": recipe.mode,
        "embedding_type": recipe.embedding_type,
        "prediction_type": recipe.prediction_type,
        "split_mode": recipe.split_mode,
        "splits": list(built.audio),
        "sample_duration": recipe.seconds,
        "evaluation": list(recipe.evaluation),
        "evaluation_params": dict(recipe.evaluation_params),
        "sources": recipe.sources,
    }
    (part / METADATA).write_text(json.dumps(metadata, indent=1))
    files = sorted(path for path in part.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(part).as_posix()}" for path in files]
    (part / MANIFEST).write_text("\n".join([*lines, ""]))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def quarter(built: Built) -> Built:
    """Every fourth clip of each split."""
    names = {split: list(clips)[::4] for split, clips in built.audio.items()}
    return Built(
        built.vocabulary,
        {split: {name: built.audio[split][name] for name in part} for split, part in names.items()},
        {
            split: {name: built.labels[split][name] for name in part}
            for split, part in names.items()
        },
    )


def divide(labels: Sequence[str], groups: Sequence[str], folds: int = FOLDS) -> list[list[int]]:
    """Positions of each fold: no group is in two of them, labels are spread evenly.

    Raises:
        BuildError: there are less than three groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(set(groups)))
    if folds < 3:
        raise BuildError(f"{folds} groups are too few for training, validation and test")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():  # that some label has fewer clips than there are folds
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(len(labels)), list(labels), list(groups))
        return [sorted(map(int, test)) for _, test in parts]


def three_parts(labels: Sequence[str], groups: Sequence[str]) -> dict[str, list[int]]:
    """Positions of train (three fifths), valid and test (a fifth each), divided by groups."""
    test, valid, *rest = divide(labels, groups)
    return dict(zip(TRAIN_VALID_TEST, (sorted(itertools.chain(*rest)), valid, test), strict=True))
