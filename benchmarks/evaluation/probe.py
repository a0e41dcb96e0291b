"""Three ways to find labels from frozen embeddings, with group-wise splits.

For each seed, the groups of a task are dealt into folds; each fold is the test data once. The score
of a seed is the share of all clips whose label was found.

linear: multinomial logistic regression; its regularisation is chosen by cross-validation in the
training data, again over whole groups, and the test clips are asked about once.
knn: the five most similar training clips vote, each with its cosine similarity.
few: the linear probe on eight training clips per label, drawn anew for each fold and seed.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .tasks import TaskData

Array = NDArray[np.floating]
Indices = NDArray[np.int64]
Pair = tuple[Indices, Indices]

TEST_FOLDS = 4
VALIDATION_FOLDS = 3
#: Inverse regularisation strengths, for features of unit variance divided by sqrt(d).
GRID = (0.03, 0.3, 3.0, 30.0, 300.0, 3000.0)
QUICK_GRID = (1.0, 30.0, 1000.0)
MAX_ITERATIONS = 300
NEIGHBOURS = 5
FEW_CLIPS = 8  # per label
FEW_STRENGTH = 30.0  # so few clips cannot choose one


@dataclasses.dataclass(frozen=True)
class Split:
    """Positions of the clips of each part.

    Shape:
        - train, test: (n,)
        - validation: pairs of positions (fit, check) inside `train`
    """

    train: Indices
    test: Indices
    validation: tuple[Pair, ...]


def splits(data: TaskData, seed: int, validation_folds: int = VALIDATION_FOLDS) -> list[Split]:
    """Divide the clips by groups, with the labels spread over the parts as evenly as possible.

    Every clip is a test clip of exactly one of the splits.

    Args:
        data: labels and groups.
        seed: of the deal.
        validation_folds: how many of the folds in the training data are used.

    Raises:
        ValueError: the task has too few groups.
    """
    found = []
    for train, test in _folds(data, np.arange(len(data.labels)), TEST_FOLDS, seed):
        validation = tuple(_folds(data, train, VALIDATION_FOLDS, seed + 1000))
        found.append(Split(train, test, validation[:validation_folds]))
    return found


def _folds(data: TaskData, positions: Indices, folds: int, seed: int) -> list[Pair]:
    """`group_folds` of some of a task's clips."""
    labels, groups = data.labels[positions], data.groups[positions]
    folds = min(folds, len(set(groups)))
    if folds < 2:
        raise ValueError(f"task {data.name}: {folds} group is too few to divide")
    if (most := np.bincount(labels).max()) < folds:
        raise ValueError(f"task {data.name}: {most} clip(s) of any label is too few to divide")
    parts = group_folds(labels, groups, folds, seed)
    return [(positions[fit], positions[check]) for fit, check in parts]


def group_folds(
    labels: Sequence[str] | Indices, groups: Sequence[str] | NDArray[np.str_], folds: int, seed: int
) -> list[Pair]:
    """Positions of the rest and of each fold: no group is in two folds, labels spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # that some label has fewer clips than there are folds
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros(len(labels)), labels, groups))


def score(
    embeddings: NDArray[np.float32],
    labels: Indices,
    parts: Sequence[Split],
    grid: Sequence[float] = GRID,
) -> float:
    """Accuracy in percent of the linear probe over the test clips of all splits.

    Args:
        embeddings: (n, d).
        labels: (n,).
        parts: divisions of the n clips; labels of their test clips are only used for the score.
        grid: inverse strengths to choose from.
    """

    def predict(part: Split) -> Indices:
        x = reduced(embeddings, part.train).astype(np.float32)
        best = choose(x, labels, part.validation, grid)
        return fit_predict(x, labels, part.train, part.test, [best])[0]

    return _accuracy(predict, labels, parts)


def score_neighbours(
    embeddings: NDArray[np.float32], labels: Indices, parts: Sequence[Split]
) -> float:
    """Accuracy in percent of the vote of the nearest training clips; arguments as for `score`."""

    def predict(part: Split) -> Indices:
        x = reduced(embeddings, part.train)
        x /= np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
        similarity = x[part.test] @ x[part.train].T  # (test, train)
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
        votes = np.zeros((len(part.test), labels.max() + 1))
        rows = np.arange(len(part.test))[:, None]
        weights = np.take_along_axis(similarity, nearest, axis=1) + 1  # a vote is never negative
        np.add.at(votes, (rows, labels[part.train][nearest]), weights)
        return votes.argmax(axis=1)

    return _accuracy(predict, labels, parts)


def score_few(
    embeddings: NDArray[np.float32], labels: Indices, parts: Sequence[Split], seed: int
) -> float:
    """Accuracy in percent of a linear probe that saw eight clips per label (or all, if fewer)."""
    rng = np.random.default_rng(seed)

    def predict(part: Split) -> Indices:
        mixed = rng.permutation(part.train)
        chosen = [mixed[labels[mixed] == label][:FEW_CLIPS] for label in np.unique(labels)]
        train = np.concatenate(chosen)
        x = reduced(embeddings, train)
        return fit_predict(x, labels, train, part.test, [FEW_STRENGTH])[0]

    return _accuracy(predict, labels, parts)


def _accuracy(
    predict: Callable[[Split], Indices], labels: Indices, parts: Sequence[Split]
) -> float:
    hits = sum(int((predict(part) == labels[part.test]).sum()) for part in parts)
    return 100 * hits / sum(len(part.test) for part in parts)


def choose(x: Array, labels: Indices, validation: Sequence[Pair], grid: Sequence[float]) -> float:
    """The strength with the most hits over the validation folds; of equals the strongest."""
    hits = np.zeros(len(grid))
    for fit, check in validation:
        for index, prediction in enumerate(fit_predict(x, labels, fit, check, grid)):
            hits[index] += (prediction == labels[check]).sum()
    return grid[int(hits.argmax())]


def reduced(embeddings: Array, train: Indices) -> Array:
    """Standardise by the training clips and rotate into the space that they span.

    A linear probe with a quadratic penalty has its weights in that space, so nothing is lost,
    and n training clips need no more than n dimensions: (n, d) -> (n, min(d, len(train))).
    """
    embeddings = embeddings.astype(np.float64)
    mean, std = embeddings[train].mean(axis=0), embeddings[train].std(axis=0)
    # What is constant in training says nothing; a tiny std would blow it up in the test clips.
    keep = std > 1e-8 * np.maximum(1.0, np.abs(mean))
    x = (embeddings[:, keep] - mean[keep]) / std[keep] / np.sqrt(max(1, keep.sum()))
    if len(train) >= x.shape[1]:
        return x
    gram = x[train] @ x[train].T
    values, vectors = np.linalg.eigh(gram)
    use = values > 1e-10 * values.max()
    return x @ (x[train].T @ (vectors[:, use] / np.sqrt(values[use])))


def fit_predict(
    x: Array, labels: Indices, fit: Indices, check: Indices, grid: Sequence[float]
) -> list[Indices]:
    """Predictions for the clips `check` of a probe fitted on the clips `fit`, per strength."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True, tol=1e-3)
    predictions = []
    with warnings.catch_warnings():
        # Stopping early at the weak end of the grid acts like a little more regularisation.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in grid:
            probe.set_params(C=strength).fit(x[fit], labels[fit])
            predictions.append(probe.predict(x[check]))
    return predictions
