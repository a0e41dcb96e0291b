"""Warnings about the scores of a probe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import Features
from .fit import Folds, Indices
from .labels import Labelled
from .results import Score

FEW = 5  # with fewer recordings of a label, its score means little
FOLLOWS = 0.5  # share of explained variance above which there is a warning


def doubts(
    labelled: Labelled, found: Features, outer: Folds, best: Score, plain: Score
) -> list[str]:
    """Warnings about the scores of a probe, as sentences."""
    y, groups = labelled.targets, np.array(labelled.groups)
    notes = []
    for c, label in enumerate(labelled.names):
        count, of = int(y[:, c].sum()), len(np.unique(groups[y[:, c]]))
        if count < FEW:
            notes.append(f"label {label!r} has only {count} recordings; its score means little")
        if of == 1:
            what = "group" if labelled.grouped else "file"
            notes.append(
                f"all recordings of label {label!r} are of one {what}, so they are never in both "
                "training and test; its score means nothing"
            )
        elif not all(y[learn, c].any() for learn, _ in outer):
            notes.append(f"label {label!r} is missing in the training recordings of a fold")
    if not labelled.several:
        loudness = found.log_mel[:, : found.log_mel.shape[1] // 2].mean(1)
        for name, values in (("loudness", loudness), ("length", found.seconds)):
            share = explained(values, y.argmax(1))
            if share > FOLLOWS:
                notes.append(
                    f"labels follow the {name} of the recordings ({100 * share:.0f} % of its "
                    f"variance); the classifier may use the {name} instead of the sound"
                )
    if plain.value >= best.value:
        notes.append(
            f"statistics of the log-mel spectrogram score as high ({plain.value:.3f}) as the "
            f"embeddings ({best.value:.3f}); the task may be easier than it looks"
        )
    return notes


def explained(values: NDArray[np.floating], labels: Indices) -> float:
    """Share of the variance of the ranks of values that labels explain, corrected for chance."""
    rounded = np.round(values, 3)
    _, inverse, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # equal values share a rank
    total = np.square(ranks - ranks.mean()).sum()
    names = np.unique(labels)
    if total == 0 or len(ranks) <= len(names):
        return 0.0
    inside = sum(np.square(r - r.mean()).sum() for r in (ranks[labels == x] for x in names))
    n = len(ranks)
    return float(1 - inside / total * (n - 1) / (n - len(names)))
