"""The result of a probe: scores, scores per label, confusions, mistakes and warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..embed.sources import Failure
from ..files import printable
from .features import Features
from .fit import Array, Division, Indices, Targets
from .head import Head
from .labels import Labelled
from .scores import METRICS, average_precisions, interval

# Methods that a classifier is compared with.
PROBE = "linear probe"
LOG_MEL = "linear probe on log-mel statistics"
BINS = 10
FEW = 5  # with fewer recordings of a label, its score means little
FOLLOWS = 0.5  # share of explained variance above which there is a warning


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
        recordings: number of recordings that were used.
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


def evaluated(
    labelled: Labelled,
    found: Features,
    divisions: Sequence[Division],
    methods: Mapping[str, Array],
    head: Head,
    curve: dict[str, float],
    out: Path,
    seed: int,
) -> ProbeResult:
    """The result.

    Args:
        methods: (n, c) scores of all recordings by each method. The scores of test recordings come
            from classifiers that were not trained on them. The first method is that of the head.
        head: the classifier that is written.
        curve, out: see `ProbeResult`.
        seed: random seed of the confidence intervals.
    """
    y, groups, several = labelled.targets, np.array(labelled.groups), labelled.several
    tested = np.concatenate([check for _, check, _ in divisions])
    scores = {}
    for method, values in methods.items():
        at = values[tested], y[tested]
        scores[method] = [
            Score(name, metric(*at), *interval(metric, *at, groups[tested], seed))
            for name, metric in METRICS[several].items()
        ]
    best = next(iter(methods))
    values = methods[best]
    confusion = None
    if not several:
        confusion = np.zeros((y.shape[1], y.shape[1]), np.int64)
        np.add.at(confusion, (y[tested].argmax(1), values[tested].argmax(1)), 1)
    warnings = _doubts(labelled, found, divisions)
    probed, plain = scores[best][0].value, scores[LOG_MEL][0].value
    if plain >= probed:
        warnings.append(
            f"statistics of the log-mel spectrogram score as high ({plain:.3f}) as the embeddings "
            f"({probed:.3f}); the task may be easier than it looks"
        )
    return ProbeResult(
        head,
        scores,
        _per_label(labelled, values, tested, confusion),
        confusion,
        curve,
        _calibration_error(values[tested], y[tested], several),
        warnings,
        _mistakes(labelled, found, values, tested),
        found.failures,
        len(y),
        out,
    )


def _per_label(
    labelled: Labelled, scores: Array, tested: Indices, confusion: NDArray[np.int64] | None
) -> list[LabelScore]:
    y, groups = labelled.targets, np.array(labelled.groups)
    areas = average_precisions(scores[tested], y[tested])
    precision = recall = np.full(len(areas), np.nan)
    if confusion is not None:
        hits = confusion.diagonal()
        precision = hits / np.maximum(1, confusion.sum(0))
        tested_of = confusion.sum(1)  # none in a split that tests other labels
        recall = np.where(tested_of > 0, hits / np.maximum(1, tested_of), np.nan)
    rows = []
    for c, label in enumerate(labelled.names):
        count, of = int(y[:, c].sum()), len(np.unique(groups[y[:, c]]))
        shares = (float(values[c]) for values in (areas, precision, recall))
        rows.append(LabelScore(label, count, of, *shares))
    return rows


def _calibration_error(scores: Array, y: Targets, several: bool) -> float:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    sure = scores.ravel() if several else scores.max(1)
    right = y.ravel() if several else y[np.arange(len(y)), scores.argmax(1)]
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=sure - right)
    return float(np.abs(gaps).sum() / len(sure))


def _mistakes(labelled: Labelled, found: Features, scores: Array, tested: Indices) -> list[Mistake]:
    names, y = labelled.names, labelled.targets
    rows = []
    for i in tested:
        if labelled.several:
            wrong = (scores[i] >= 0.5) != y[i]
        else:
            wrong = (np.arange(len(names)) == scores[i].argmax()) & ~y[i]
        if not wrong.any():
            continue
        sure = np.where(y[i], 1 - scores[i], scores[i])
        worst = int(np.where(wrong, sure, -1).argmax())
        recording = labelled.recordings[i]
        rows.append(
            Mistake(
                printable(recording.path),
                recording.start,
                float(found.ends[i]),
                "; ".join(labelled.labels[i]),
                f"not {names[worst]}" if y[i, worst] else names[worst],
                float(sure[worst]),
                recording.where,
            )
        )
    return sorted(rows, key=lambda row: -row.probability)


# ---------------------------------------------------------------------------------------------
# Warnings
# ---------------------------------------------------------------------------------------------
def _doubts(labelled: Labelled, found: Features, divisions: Sequence[Division]) -> list[str]:
    """Reasons to doubt the scores, as sentences."""
    y, groups = labelled.targets, np.array(labelled.groups)
    notes = []
    for c, label in enumerate(labelled.names):
        count, of = int(y[:, c].sum()), np.unique(groups[y[:, c]])
        if count < FEW:
            notes.append(f"label {label!r} has only {count} recordings; its score means little")
        if len(of) == 1:
            notes.append(
                f"all recordings of label {label!r} are of one {of[0].split()[0]}, so they are "
                "never in both training and test; its score means nothing"
            )
        elif not all(y[learn, c].any() for learn, _, _ in divisions):
            notes.append(f"label {label!r} is missing in the training recordings of a fold")
    if not labelled.several:
        loudness = found.log_mel[:, : found.log_mel.shape[1] // 2].mean(1)
        for name, values in (("loudness", loudness), ("length", found.ends - found.starts)):
            share = explained(values, y.argmax(1))
            if share > FOLLOWS:
                notes.append(
                    f"labels follow the {name} of the recordings ({100 * share:.0f} % of its "
                    f"variance); the classifier may use the {name} instead of the sound"
                )
    return notes


def explained(values: NDArray[np.floating], labels: Indices) -> float:
    """Share of the variance of the ranks of values that labels explain, corrected for chance."""
    _, inverse, counts = np.unique(np.round(values, 3), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # equal values share a rank
    names, n = np.unique(labels), len(ranks)
    total = np.square(ranks - ranks.mean()).sum()
    if total == 0 or n <= len(names):
        return 0.0
    inside = sum(np.square(r - r.mean()).sum() for r in (ranks[labels == x] for x in names))
    return float(1 - inside / total * (n - 1) / (n - len(names)))
