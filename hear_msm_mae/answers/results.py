"""What a probe found."""

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
    """How well one label is found; `precision` and `recall` where recordings have one label."""

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
    """What `probe` found.

    Attributes:
        head: the classifier, learnt from all recordings that are not kept for the test.
        scores: of each method, the head's first, on recordings that it did not learn from.
        per_label: in the order of `head.labels`.
        confusion: (c, c) recordings of each label (rows) and what was predicted; None where a
            recording may have several labels.
        curve: the first score by the number of labelled recordings of each label.
        calibration_error: mean distance of probabilities from the share that is right.
        warnings: what makes the scores doubtful.
        mistakes: the surest first.
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
