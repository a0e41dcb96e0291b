"""Metrics of scores (n, c) against labels (n, c), with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .fit import Array, Targets

DRAWS = 400

Metric = Callable[[Array, Targets], float]


def accuracy(scores: Array, y: Targets) -> float:
    """Share of the recordings whose label has the highest score."""
    return float(y[np.arange(len(y)), scores.argmax(1)].mean())


def balanced_accuracy(scores: Array, y: Targets) -> float:
    """Mean recall of the labels (balanced accuracy)."""
    hits = y[np.arange(len(y)), scores.argmax(1)].astype(float)
    counts = y.sum(0)
    return float(((hits @ y)[counts > 0] / counts[counts > 0]).mean())


def mean_average_precision(scores: Array, y: Targets) -> float:
    """Mean average precision of the labels."""
    values = average_precisions(scores, y)
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def average_precisions(scores: Array, y: Targets) -> Array:
    """(c,) average precision of each label; NaN if no recording has it.

    Equal scores count as one threshold. Scikit-learn's function takes ten times as long.
    """
    found = np.full(y.shape[1], np.nan)
    for c in np.flatnonzero(y.any(0)):
        order = np.argsort(-scores[:, c], kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order, c]) != 0, True))
        true = np.cumsum(y[order, c])[ends]
        found[c] = (np.diff(true, prepend=0) * true / (ends + 1)).sum() / true[-1]
    return found


# By whether a recording may have several labels; the first metric is the main score.
METRICS: dict[bool, dict[str, Metric]] = {
    False: {"accuracy": accuracy, "balanced accuracy": balanced_accuracy},
    True: {"mean average precision": mean_average_precision},
}


def main_metric(several: bool) -> tuple[str, Metric]:
    """Name and function of the main score."""
    return next(iter(METRICS[several].items()))


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
    values = []
    for times in generator.multinomial(count, np.full(count, 1 / count), DRAWS):
        drawn = np.repeat(np.arange(len(y)), times[index])
        values.append(metric(scores[drawn], y[drawn]))
    low, high = np.quantile(values, (0.025, 0.975))
    if low == 1.0:
        low = 0.025 ** (1 / count)
    return float(low), float(high)
