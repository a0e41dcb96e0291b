"""Linear classifiers: folds over whole groups, logistic regression, temperature.

Labels are (n, c) booleans. If recordings have exactly one label, probabilities are a softmax. If
they may have several, the probability of each label is a sigmoid.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Targets = NDArray[np.bool_]
Indices = NDArray[np.int64]
Folds = Sequence[tuple[Indices, Indices]]

# Inverse strengths of the regularisation, for features of unit variance divided by sqrt(d).
GRID = (0.03, 0.3, 3.0, 30.0, 300.0, 3000.0)
OUTER_FOLDS, INNER_FOLDS = 5, 3
MAX_ITERATIONS = 300
NEIGHBOURS = 5
NEVER = -30.0  # logit of a label without training recordings
TEMPERATURES = np.geomspace(0.5, 20.0, 80)  # perfect separation would give 0


class Division(NamedTuple):
    """Indices of the training and test recordings; inner folds choose the regularisation."""

    learn: Indices
    check: Indices
    inner: Folds


@dataclasses.dataclass(frozen=True)
class Linear:
    """Logits of c labels: weight (c, d), bias (c,)."""

    weight: Array
    bias: Array

    def logits(self, embeddings: NDArray[np.floating]) -> Array:
        """(n, d) -> (n, c)."""
        return embeddings.astype(np.float64) @ self.weight.T + self.bias


def folds(y: Targets, groups: NDArray[np.str_], count: int, seed: int) -> Folds:
    """Pairs of indices (training, test) that never share a group.

    Labels are spread over the folds as evenly as the groups allow. Of several labels of a
    recording the rarest counts.

    Raises:
        ValueError: there is only one group.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    rare = np.where(y, y.sum(0), len(y) + 1)
    stratum = np.where(y.any(1), rare.argmin(1), -1)
    count = min(count, len(np.unique(groups)), np.unique(stratum, return_counts=True)[1].max())
    if count < 2:
        raise ValueError(
            "the recordings cannot be divided into some to learn from and some to test: there are "
            f"{len(y)} in {len(np.unique(groups))} groups; label more files, or more groups"
        )
    splitter = StratifiedGroupKFold(int(count), shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a label has fewer recordings than there are folds
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(stratum, stratum, groups))


def standards(x: NDArray[np.floating]) -> tuple[Array, Array]:
    """Mean and standard deviation of each feature; infinite for a feature that is constant.

    Such a feature is not scaled up, as it may vary in other recordings.
    """
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    return mean, np.where(std > 1e-8 * np.maximum(1.0, np.abs(mean)), std, np.inf)


def fit(x: NDArray[np.floating], y: Targets, several: bool, grid: Sequence[float]) -> list[Linear]:
    """A classifier for each regularisation strength of the grid.

    Features are standardised. If there are fewer recordings than features, they are rotated into
    the space that the recordings span, which saves time and does not change the result.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = standards(x)
    scale = scale * np.sqrt(max(1, np.isfinite(scale).sum()))
    z, basis = (x - mean) / scale, None
    if len(x) < x.shape[1]:
        u, s, basis = np.linalg.svd(z, full_matrices=False)
        z = u * s
    each = [np.array([c]) for c in range(y.shape[1])]
    problems = each if several else [np.flatnonzero(y.any(0))]
    weights = np.zeros((len(grid), y.shape[1], z.shape[1]))
    biases = np.full((len(grid), y.shape[1]), NEVER)
    for labels in problems:
        answer = y[:, labels[0]] if several else y.argmax(1)
        if len(np.unique(answer)) < 2:
            biases[:, labels] = -NEVER if not several or answer[0] else NEVER
            continue
        probe = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True, tol=1e-3)
        for i, strength in enumerate(grid):
            with warnings.catch_warnings():  # stopping early acts like more regularisation
                warnings.simplefilter("ignore", ConvergenceWarning)
                probe.set_params(C=strength).fit(z, answer)
            if len(labels) == 2:  # with two labels, one logit determines both
                weights[i, labels] = np.outer((-0.5, 0.5), probe.coef_[0])
                biases[i, labels] = np.array((-0.5, 0.5)) * probe.intercept_[0]
            else:
                weights[i, labels], biases[i, labels] = probe.coef_, probe.intercept_
    if basis is not None:
        weights = weights @ basis
    weights /= scale
    return [Linear(w, b - w @ mean) for w, b in zip(weights, biases, strict=True)]


def choose(
    x: NDArray[np.floating], y: Targets, several: bool, inner: Folds
) -> tuple[float, float, Linear]:
    """Choose strength and temperature by the loss on held-out folds.

    Returns:
        Both, and the classifier that is trained with them on all recordings of the folds.
    """
    held = np.concatenate([check for _, check in inner])
    logits = np.concatenate(
        [
            np.stack([linear.logits(x[check]) for linear in fit(x[learn], y[learn], several, GRID)])
            for learn, check in inner
        ],
        axis=1,
    )  # (strengths, n, c)
    calibrated = [calibrate(found, y[held], several) for found in logits]
    best = int(np.argmin([loss for _, loss in calibrated]))
    everything = np.unique(np.concatenate([part for pair in inner for part in pair]))
    [linear] = fit(x[everything], y[everything], several, [GRID[best]])
    return GRID[best], calibrated[best][0], linear


def calibrate(logits: Array, y: Targets, several: bool) -> tuple[float, float]:
    """The temperature with the lowest loss (Guo et al. 2017), and that loss."""
    losses = [log_loss(logits / t, y, several) for t in TEMPERATURES]
    best = int(np.argmin(losses))
    return float(TEMPERATURES[best]), losses[best]


def log_loss(logits: Array, y: Targets, several: bool) -> float:
    """Mean negative log-likelihood of the labels."""
    if several:
        return float(np.logaddexp(0, np.where(y, -logits, logits)).mean())
    return float(-_log_softmax(logits)[y].mean())


def probabilities(logits: Array, several: bool) -> Array:
    """(n, c) logits -> probabilities; they sum to 1 if a recording has exactly one label."""
    return np.exp(-np.logaddexp(0, -logits) if several else _log_softmax(logits))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def neighbours(x: NDArray[np.floating], y: Targets, learn: Indices, check: Indices) -> Array:
    """Shares of the labels among the five nearest neighbours by cosine; the nearest break ties."""
    mean, scale = standards(x[learn])
    unit = (x - mean) / scale
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    similarity = unit[check] @ unit[learn].T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
    weights = 1 + 0.01 * np.take_along_axis(similarity, order, axis=1)
    return np.asarray((weights[..., None] * y[learn][order]).sum(1) / weights.sum(1, keepdims=True))
