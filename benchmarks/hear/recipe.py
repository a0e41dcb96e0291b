"""What the builders of scene and event tasks share: recipes, and divisions by groups."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weights.corpus.packages import BuildError

from .tasks_format import TRAIN_VALID_TEST

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
        return f"{self.name}-{self.version}-{self.mode}"


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
