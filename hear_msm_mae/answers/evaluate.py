"""Evaluate a classifier: scores, scores per label, confusions, mistakes and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files import printable, replacing
from . import scores as measures
from .doubts import doubts
from .features import Features
from .fit import Array, Folds, Indices, Targets
from .head import Head
from .labels import Labelled
from .probe_page import probe_page
from .results import LOG_MEL, LabelScore, Mistake, ProbeResult, Score
from .scores import Metric

BINS = 10


def metrics_of(several: bool) -> dict[str, Metric]:
    """The metrics; the first one is the main score."""
    if several:
        return {"mean average precision": measures.mean_average_precision}
    return {"accuracy": measures.accuracy, "balanced accuracy": measures.balanced_accuracy}


def evaluated(
    labelled: Labelled,
    found: Features,
    outer: Folds,
    methods: Mapping[str, Array],
    head: Head,
    seed: int,
) -> ProbeResult:
    """The report.

    Args:
        outer: indices of the training and test recordings of each fold.
        methods: (n, c) scores of all recordings by each method. The scores of test recordings come
            from classifiers that were not trained on them. The first method is that of the head.
        head: the classifier that is written.
        seed: random seed of the confidence intervals.
    """
    y, groups, several = labelled.targets, np.array(labelled.groups), labelled.several
    tested = np.concatenate([check for _, check in outer])
    ones = np.ones(len(tested))
    scores = {
        method: [
            Score(
                name,
                metric(values[tested], y[tested], ones),
                *measures.interval(metric, values[tested], y[tested], groups[tested], seed),
            )
            for name, metric in metrics_of(several).items()
        ]
        for method, values in methods.items()
    }
    best = next(iter(methods))
    values = methods[best]
    confusion = None
    if not several:
        confusion = np.zeros((y.shape[1], y.shape[1]), np.int64)
        np.add.at(confusion, (y[tested].argmax(1), values[tested].argmax(1)), 1)
    return ProbeResult(
        head,
        scores,
        _per_label(labelled, values, tested, confusion),
        confusion,
        {},
        _calibration_error(values[tested], y[tested], several),
        doubts(labelled, found, outer, scores[best][0], scores[LOG_MEL][0]),
        _mistakes(labelled, found, values, tested),
        [],
        len(y),
        Path(),
    )


def write(result: ProbeResult, page: str, curve: str, note: str = "") -> None:
    """Write the page, the labels and, last, the head into the folder of the result.

    Args:
        page: name of the page.
        curve, note: see `probe_page`.
    """
    with replacing(result.out / page) as temporary:
        temporary.write_text(probe_page(result, curve, note), "utf-8")
    about = {
        "temperature": result.head.temperature,
        "recordings": result.recordings,
        "scores": {k: [x._asdict() for x in scores] for k, scores in result.scores.items()},
        "curve": result.curve,
        "warnings": result.warnings,
    }
    result.head.save(result.out, about)


def _per_label(
    labelled: Labelled, scores: Array, tested: Indices, confusion: NDArray[np.int64] | None
) -> list[LabelScore]:
    y, groups = labelled.targets, np.array(labelled.groups)
    areas = measures.average_precisions(scores[tested], y[tested], np.ones(len(tested)))
    rows = []
    for c, label in enumerate(labelled.names):
        precision = recall = float("nan")
        if confusion is not None:
            hits = confusion[c, c]
            precision = float(hits / max(1, confusion[:, c].sum()))
            recall = float(hits / max(1, confusion[c].sum()))
        count, of = int(y[:, c].sum()), len(np.unique(groups[y[:, c]]))
        rows.append(LabelScore(label, count, of, float(areas[c]), precision, recall))
    return rows


def _calibration_error(scores: Array, y: Targets, several: bool) -> float:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    sure = scores.ravel() if several else scores.max(1)
    right = y.ravel() if several else y[np.arange(len(y)), scores.argmax(1)]
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs((sure - right)[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(sure))


def _mistakes(labelled: Labelled, found: Features, scores: Array, tested: Indices) -> list[Mistake]:
    names, y = labelled.names, labelled.targets
    rows = []
    for i in tested:
        wrong = (scores[i] >= 0.5) != y[i]
        if not labelled.several:
            wrong = np.arange(len(names)) == scores[i].argmax()
            wrong &= ~y[i]
        if not wrong.any():
            continue
        sure = np.where(y[i], 1 - scores[i], scores[i])
        worst = int(np.where(wrong, sure, -1).argmax())
        recording = labelled.recordings[i]
        said = names[worst] if not y[i, worst] else f"not {names[worst]}"
        rows.append(
            Mistake(
                printable(recording.path),
                recording.start,
                float(found.ends[i]),
                "; ".join(labelled.labels[i]),
                said,
                float(sure[worst]),
                recording.where,
            )
        )
    return sorted(rows, key=lambda row: -row.probability)
