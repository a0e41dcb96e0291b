"""Linear probe: multinomial logistic regression on frozen embeddings, group-wise splits.

For each seed, the groups of a task are divided into test and training groups; regularisation is
chosen by cross-validation over the training groups; then one probe is fitted on all training
clips and scored on the test clips, once.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .tasks import TaskData

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

TEST_FOLDS = 4  # a quarter of the clips is for testing
VALIDATION_FOLDS = 3
#: Inverse regularisation strengths, for features of unit variance divided by sqrt(d).
GRID = (0.03, 0.3, 3.0, 30.0, 300.0, 3000.0)
QUICK_GRID = (0.3, 10.0, 300.0)
MAX_ITERATIONS = 300


@dataclasses.dataclass(frozen=True)
class Split:
    """Positions of the clips of each part.

    Shape:
        - train, test: (n,)
        - validation: pairs of positions (fit, check) inside `train`
    """

    train: Indices
    test: Indices
    validation: tuple[tuple[Indices, Indices], ...]


def split(data: TaskData, seed: int, folds: int = VALIDATION_FOLDS) -> Split:
    """Divide the clips by groups, with the labels spread over the parts as evenly as it goes."""
    everything = np.arange(len(data.labels))
    train, test = next(_folds(data, everything, TEST_FOLDS, seed))
    validation = tuple(_folds(data, train, max(2, VALIDATION_FOLDS), seed + 1000))[:folds]
    return Split(train, test, validation)


def _folds(
    data: TaskData, positions: Indices, folds: int, seed: int
) -> Iterator[tuple[Indices, Indices]]:
    from sklearn.model_selection import StratifiedGroupKFold

    groups = data.groups[positions]
    folds = min(folds, len(set(groups)))
    if folds < 2:
        raise ValueError(f"task {data.name}: {folds} group is too few to divide")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # that some label has fewer clips than there are folds
        warnings.simplefilter("ignore", UserWarning)
        for fit, check in splitter.split(positions, data.labels[positions], groups):
            yield positions[fit], positions[check]


def score(
    embeddings: NDArray[np.float32], labels: Indices, parts: Split, grid: Sequence[float] = GRID
) -> tuple[float, float]:
    """Accuracy in percent on the test clips, and the regularisation that was chosen.

    Args:
        embeddings: (n, d).
        labels: (n,).
        parts: how to divide the n clips; labels of `parts.test` are only used for the score.
        grid: inverse strengths to choose from.
    """
    x = reduced(embeddings.astype(np.float64), parts.train)
    best = choose(x, labels, parts.validation, grid) if len(grid) > 1 else grid[0]
    [prediction] = fit_predict(x, labels, parts.train, parts.test, [best])
    return 100 * float((prediction == labels[parts.test]).mean()), best


def choose(
    x: Array, labels: Indices, validation: Sequence[tuple[Indices, Indices]], grid: Sequence[float]
) -> float:
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
