"""The result of a probe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..embed.sources import Failure
from .head import Head

# Among the methods.
PROBE = "linear probe"
LOG_MEL = "linear probe on log-mel statistics"


class Score(NamedTuple):
    """A score from 0 to 1 and its 95 % confidence interval."""

    name: str
    value: float
    low: float
    high: float


class LabelScore(NamedTuple):
    """Scores of one label; `precision` and `recall` only if recordings have exactly one label."""

    label: str
    recordings: int
    groups: int
    average_precision: float
    precision: float
    recall: float


class Mistake(NamedTuple):
    """A recording whose label was not found; `file` is its absolute path."""

    path: str
    start: float
    end: float
    labels: str
    predicted: str
    probability: float
    file: str


@dataclasses.dataclass
class ProbeResult:
    """The result of `probe`.

    Attributes:
        head: the classifier, trained on all recordings except those of `test`.
        scores: scores of each method on held-out recordings, those of the head first.
        per_label: scores of each label, in the order of `head.labels`.
        confusion: (c, c) numbers of recordings by label (rows) and prediction (columns); None if
            recordings may have several labels.
        curve: main score by number of training recordings per label.
        calibration_error: mean difference between probabilities and shares of correct labels.
        warnings: reasons to doubt the scores.
        mistakes: wrongly labelled recordings, the highest probability first.
        failures: recordings that could not be read.
        out: folder with the head, the labels, the page and the embeddings.
    """

    head: Head
    scores: dict[str, list[Score]]
    per_label: list[LabelScore]
    confusion: NDArray[np.int64] | None
    curve: dict[str, float]
    calibration_error: float
    warnings: list[str]
    mistakes: list[Mistake]
    failures: list[Failure]
    recordings: int
    out: Path
