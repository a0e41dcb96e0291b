"""Build offline tasks: small ones in HEAR's format, from the evaluation sources."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from hear_msm_mae.config import SAMPLE_RATE
from weights.corpus.packages import BuildError

from ..evaluation.probe import group_folds
from .task import METADATA, TRAIN_VALID_TEST, VOCABULARY

log = logging.getLogger("hear")

FOLDS = 5
# One point of the kit's grid instead of the one that its shuffling happens to put first.
QUICK_TRAINING = {
    "hidden_layers": [1], "lr": [1e-3], "max_epochs": [50], "check_val_every_n_epoch": [5],
}  # fmt: skip
Waveform = NDArray[np.float32]  # (n,) at 16 kHz
Labels = list[Any]  # labels of a scene, or events
Splits = dict[str, dict[str, tuple[Waveform, Labels]]]  # by split and file name


@dataclass(frozen=True)
class Built:
    """A task's content."""

    vocabulary: Sequence[str]
    splits: Splits


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
            recipe = dataclasses.replace(recipe, mode="tiny")
            quarters = {name: dict(list(part.items())[::4]) for name, part in built.splits.items()}
            built = Built(built.vocabulary, quarters)
        write_task(out / recipe.folder, recipe, built, rates)
        clips = [waveform for part in built.splits.values() for waveform, _ in part.values()]
        minutes = sum(map(len, clips)) / SAMPLE_RATE / 60
        log.info("%s: %d clips, %.1f min", recipe.folder, len(clips), minutes)


def write_task(folder: Path, recipe: TaskRecipe, built: Built, rates: Sequence[int]) -> None:
    """Write a task beside its place and move it there."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for split, clips in built.splits.items():
        for rate in rates:
            target = part / str(rate) / split
            target.mkdir(parents=True)
            for name, (waveform, _) in clips.items():
                if rate != SAMPLE_RATE:
                    waveform = soxr.resample(waveform, SAMPLE_RATE, rate)
                soundfile.write(target / name, waveform, rate, subtype="PCM_16")
        labels = {name: given for name, (_, given) in clips.items()}
        (part / f"{split}.json").write_text(json.dumps(labels, indent=1))
    rows = [f"{index},{label}" for index, label in enumerate(built.vocabulary)]
    (part / VOCABULARY).write_text("\n".join(["idx,label", *rows, ""]))
    metadata = {
        "task_name": recipe.name,
        "version": recipe.version,
        "mode": recipe.mode,
        "embedding_type": recipe.embedding_type,
        "prediction_type": recipe.prediction_type,
        "split_mode": recipe.split_mode,
        "splits": list(built.splits),
        "sample_duration": recipe.seconds,
        "evaluation": list(recipe.evaluation),
        "evaluation_params": dict(recipe.evaluation_params),
        "sources": recipe.sources,
    }
    (part / METADATA).write_text(json.dumps(metadata, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def divide(labels: Sequence[str], groups: Sequence[str]) -> list[list[int]]:
    """Positions of each of five folds (or as many as there are groups), see `group_folds`.

    Raises:
        BuildError: there are less than three groups.
    """
    folds = min(FOLDS, len(set(groups)))
    if folds < 3:
        raise BuildError(f"{folds} groups are too few for training, validation and test")
    return [test.tolist() for _, test in group_folds(labels, groups, folds, seed=0)]


def three_parts(labels: Sequence[str], groups: Sequence[str]) -> dict[str, list[int]]:
    """Positions of train (three fifths), valid and test (a fifth each), divided by groups."""
    test, valid, *rest = divide(labels, groups)
    return dict(zip(TRAIN_VALID_TEST, (sorted(itertools.chain(*rest)), valid, test), strict=True))
