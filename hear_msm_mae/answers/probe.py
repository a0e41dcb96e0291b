"""Train and evaluate a linear classifier on embeddings of labelled recordings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..embed.run import Summary
from ..embed.settings import settings_of
from ..extras import need
from ..files import printable
from . import fit
from .evaluate import evaluated, metrics_of, write
from .features import Features, features
from .fit import NEIGHBOURS, Array, Folds, Indices, Targets
from .head import Head
from .labels import Labelled, read_labels
from .loading import Model, loaded
from .results import LOG_MEL, PROBE, ProbeResult
from .scores import Metric

PAGE = "probe.html"
KNN = f"{NEIGHBOURS} nearest neighbours"
CONSTANT = "always the most frequent label"
SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # labelled recordings of each label
FEW_THREADS = 2000  # with fewer recordings one thread is faster


class Division(NamedTuple):
    """Indices of the training and test recordings; inner folds choose the regularisation."""

    learn: Indices
    check: Indices
    inner: Folds


def probe(
    labels: str | Path,
    out: str | Path,
    model: Model = "",
    *,
    device: str = "cpu",
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
) -> ProbeResult:
    """Train a linear classifier on labelled recordings, and score it on held-out recordings.

    Without a column `split` the score comes from cross-validation with five folds over whole
    groups, and the regularisation from inner folds. With it, the score is that of `test`.

    Args:
        labels: see `hear_msm_mae.answers.labels.read_labels`.
        out: folder for `head.safetensors`, `labels.json`, `probe.html` and the embeddings, which a
            second run reuses.
        model: from `load_model`, or weights for it.
        device: device that embeds.
        seed: random seed of the folds.
        workers: number of threads that decode.
        overwrite: embed everything anew.

    Returns:
        Scores, warnings, mistakes and the classifier.

    Raises:
        FileNotFoundError, ValueError: see `read_labels`; there are too few recordings, or the
            folder has embeddings of another model.
    """
    need("sklearn", "answers", "probes")
    need("pyarrow.parquet", "answers", "probes")
    labelled = read_labels(labels)
    divided(labelled, seed)  # before anything is embedded
    model, name = loaded(model, device)
    out = Path(out)
    settings = settings_of(model, name)
    found, summary = features(
        labelled.recordings, model, settings, out, workers=workers, overwrite=overwrite
    )
    labelled = still_labelled(labelled, found, summary)
    with few_threads(len(found.kept)):
        result = _report(labelled, found, settings.stored(), seed)
    result.failures, result.out = summary.failures, out
    name = result.scores[PROBE][0].name
    write(result, PAGE, f"{name.capitalize()} (%) by labelled recordings of each label")
    return result


def still_labelled(labelled: Labelled, found: Features, summary: Summary) -> Labelled:
    """The recordings that could be read.

    Raises:
        ValueError: all of them have the same label.
    """
    labelled = labelled.select(found.kept.tolist())
    if len(labelled.names) < 2 - labelled.several:
        raise ValueError(
            f"only recordings of {labelled.names} could be read, a classifier needs two labels; "
            f"see {printable(str(summary.failures_file))}"
        )
    return labelled


def few_threads(recordings: int) -> AbstractContextManager[Any]:
    """Use one thread for small matrices, where more threads are slower."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    limits: AbstractContextManager[Any] = threadpool_limits(1 if recordings < FEW_THREADS else None)
    return limits


def divided(labelled: Labelled, seed: int) -> list[Division]:
    """Five folds over whole groups, or the split of the table.

    Raises:
        ValueError: too few recordings or groups.
    """
    y, groups = labelled.targets, np.array(labelled.groups)

    def inside(learn: Indices) -> Folds:
        pairs = fit.folds(y[learn], groups[learn], fit.INNER_FOLDS, seed + 1)
        return [(learn[a], learn[b]) for a, b in pairs]

    if labelled.splits is None:
        outer = fit.folds(y, groups, fit.OUTER_FOLDS, seed)
        return [Division(learn, check, inside(learn)) for learn, check in outer]
    splits = np.array(labelled.splits)
    train, valid, test = (np.flatnonzero(splits == x) for x in ("train", "valid", "test"))
    if not len(train) or not len(test):
        raise ValueError(
            "no recordings of 'train' or of 'test' could be read; correct the files or the split"
        )
    inner = [(train, valid)] if len(valid) else inside(train)
    return [Division(np.concatenate([train, valid]), test, inner)]


def _report(
    labelled: Labelled, found: Features, settings: dict[str, object], seed: int
) -> ProbeResult:
    y, groups, several = labelled.targets, np.array(labelled.groups), labelled.several
    divisions = divided(labelled, seed)
    outer = [(learn, check) for learn, check, _ in divisions]
    methods, strengths, temperature, linear = crossed(labelled, found, divisions)
    if labelled.splits is None:  # else the head is the classifier that was tested
        inner = fit.folds(y, groups, fit.INNER_FOLDS, seed + 1)
        _, temperature, linear = fit.choose(found.embeddings, y, several, inner)
    head = Head(labelled.names, several, linear, temperature, dict(settings))
    result = evaluated(labelled, found, outer, methods, head, seed)
    metric = next(iter(metrics_of(several).values()))
    result.curve = _curve(found.embeddings, y, several, outer, strengths, metric, seed)
    result.curve["all"] = result.scores[PROBE][0].value
    return result


class Crossed(NamedTuple):
    """Scores of recordings by classifiers that were not trained on them.

    Attributes:
        methods: (n, c) scores by each method.
        strengths: regularisation strength of the probe in each fold.
        temperature, linear: those of the probe in the last fold.
    """

    methods: dict[str, Array]
    strengths: list[float]
    temperature: float
    linear: fit.Linear


def crossed(labelled: Labelled, found: Features, divisions: Sequence[Division]) -> Crossed:
    """Scores by the probe and by the methods that it is compared with."""
    y, several = labelled.targets, labelled.several
    methods = {name: np.zeros(y.shape) for name in (PROBE, KNN, LOG_MEL)}
    methods[CONSTANT] = np.tile(y.mean(0), (len(y), 1))
    strengths = []
    for learn, check, inner in divisions:
        methods[KNN][check] = fit.neighbours(found.embeddings, y, learn, check)
        for name, x in ((LOG_MEL, found.log_mel), (PROBE, found.embeddings)):
            strength, temperature, linear = fit.choose(x, y, several, inner)
            logits = linear.logits(x[check]) / temperature
            methods[name][check] = fit.probabilities(logits, several)
        strengths.append(strength)
    return Crossed(methods, strengths, temperature, linear)


def _curve(
    x: NDArray[np.floating],
    y: Targets,
    several: bool,
    outer: Folds,
    strengths: list[float],
    metric: Metric,
    seed: int,
) -> dict[str, float]:
    """The score of classifiers that were trained on a few recordings of each label."""
    found = {}
    generator = np.random.default_rng(seed)
    most = min(int(y[learn].sum(0).max()) for learn, _ in outer)
    for shots in (shots for shots in SHOTS if shots < most):
        scores = np.zeros(y.shape)
        for (learn, check), strength in zip(outer, strengths, strict=True):
            order = generator.permutation(learn)
            few = np.unique(np.concatenate([order[y[order, c]][:shots] for c in range(y.shape[1])]))
            if several:  # and as many without any of these labels
                rest = np.setdiff1d(order, few)
                few = np.concatenate([few, generator.permutation(rest)[: len(few)]])
            [linear] = fit.fit(x[few], y[few], several, [strength])
            scores[check] = linear.logits(x[check])
        tested = np.concatenate([check for _, check in outer])
        found[str(shots)] = metric(scores[tested], y[tested], np.ones(len(tested)))
    return found
