"""Metrics of scores (n, c) against labels (n, c), with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .fit import Array, Targets

DRAWS = 400

Metric = Callable[[Array, Targets, Array], float]  # (scores, labels, weight of each recording)


def accuracy(scores: Array, y: Targets, weight: Array) -> float:
    """Share of the recordings whose label has the highest score."""
    return float(np.average(y[np.arange(len(y)), scores.argmax(1)], weights=weight))


def balanced_accuracy(scores: Array, y: Targets, weight: Array) -> float:
    """Mean recall of the labels (balanced accuracy)."""
    hits = y[np.arange(len(y)), scores.argmax(1)] * weight
    counts = weight @ y
    return float(((hits @ y)[counts > 0] / counts[counts > 0]).mean())


def mean_average_precision(scores: Array, y: Targets, weight: Array) -> float:
    """Mean average precision of the labels."""
    values = average_precisions(scores, y, weight)
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def average_precisions(scores: Array, y: Targets, weight: Array) -> Array:
    """(c,) average precision of each label; NaN if no recording has it.

    Equal scores count as one threshold.
    """
    found = np.full(y.shape[1], np.nan)
    for c in range(y.shape[1]):
        order = np.argsort(-scores[:, c], kind="stable")
        ends = np.append(np.diff(scores[order, c]) != 0, True)
        true = np.cumsum(weight[order] * y[order, c])[ends]
        every = np.cumsum(weight[order])[ends]
        if true[-1] > 0:
            precision = true / np.maximum(every, 1e-12)
            found[c] = (np.diff(true, prepend=0.0) * precision).sum() / true[-1]
    return found


def interval(
    metric: Metric, scores: Array, y: Targets, groups: NDArray[np.str_], seed: int = 0
) -> tuple[float, float]:
    """95 % confidence interval of a score by bootstrap over groups.

    The bootstrap of a perfect score has no width. Its lower end is then the bound for n groups
    without a mistake (Clopper and Pearson 1934).
    """
    _, index = np.unique(groups, return_inverse=True)
    count = int(index.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), DRAWS)
    values = [metric(scores, y, row[index].astype(float)) for row in drawn]
    low, high = np.quantile(values, (0.025, 0.975))
    if low == 1.0:
        low = 0.025 ** (1 / count)
    return float(low), float(high)
