"""Train and evaluate a linear classifier on embeddings of labelled recordings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..embed.settings import settings_of
from ..extras import need
from ..files import replacing
from . import fit
from .evaluate import LOG_MEL, PROBE, ProbeResult, evaluated
from .features import Features, features
from .fit import NEIGHBOURS, Array, Division, Folds, Indices
from .head import Head
from .labels import Labelled, read_labels
from .loading import Model, loaded
from .page import probe_page
from .scores import main_metric

PAGE = "probe.html"
KNN = f"{NEIGHBOURS} nearest neighbours"
CONSTANT = "always the most frequent label"
SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # labelled recordings of each label
FEW_THREADS = 2000  # with fewer recordings one thread is faster


def probe(
    labels: str | Path,
    out: str | Path,
    model: Model = "",
    *,
    scene_pooling: str | None = None,
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
        scene_pooling: "mean" or "mean+std" of the embeddings over time; by default that of the
            model. Timestamps can be labelled by a classifier of "mean" only.
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
    labelled, out = read_labels(labels), Path(out)
    divided(labelled, seed)  # refuses too few recordings before anything is embedded
    if scene_pooling is not None and not isinstance(model, (str, Path)):
        raise ValueError("a model in memory has its own scene_pooling; pass it to load_model")
    model, name = loaded(model, device, scene_pooling=scene_pooling)
    settings = settings_of(model, name)
    labelled, found = features(labelled, model, settings, out, workers=workers, overwrite=overwrite)
    y, several, x = labelled.targets, labelled.several, found.embeddings
    with few_threads(labelled):
        divisions = divided(labelled, seed)
        tested = crossed(labelled, found, divisions)
        temperature, linear = tested.temperature, tested.linear
        if not labelled.splits:  # else the head is the classifier that was tested
            inner = fit.folds(y, np.array(labelled.groups), fit.INNER_FOLDS, seed + 1)
            _, temperature, linear = fit.choose(x, y, several, inner)
        head = Head(labelled.names, several, linear, temperature, settings.stored())
        curve = _curve(labelled, found, divisions, tested, seed)
        result = evaluated(labelled, found, divisions, tested.methods, head, curve, out, seed)
    metric, _ = main_metric(several)
    write(result, PAGE, f"{metric.capitalize()} (%) by labelled recordings of each label")
    return result


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


def few_threads(labelled: Labelled) -> AbstractContextManager[Any]:
    """Use one thread for small matrices, where more threads are slower."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    few = len(labelled.recordings) < FEW_THREADS
    return threadpool_limits(1 if few else None)


def divided(labelled: Labelled, seed: int) -> list[Division]:
    """Five folds over whole groups, or the split of the table.

    Raises:
        ValueError: too few recordings or groups.
    """
    y, groups = labelled.targets, np.array(labelled.groups)

    def inside(learn: Indices) -> Folds:
        pairs = fit.folds(y[learn], groups[learn], fit.INNER_FOLDS, seed + 1)
        return [(learn[a], learn[b]) for a, b in pairs]

    if not labelled.splits:
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
    learnt = np.concatenate([learn for learn, _, _ in divisions])
    methods[CONSTANT] = np.tile(y[learnt].mean(0), (len(y), 1))
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
    labelled: Labelled,
    found: Features,
    divisions: Sequence[Division],
    crossed: Crossed,
    seed: int,
) -> dict[str, float]:
    """The score of classifiers that were trained on a few recordings of each label, and on all."""
    x, y, several = found.embeddings, labelled.targets, labelled.several
    _, metric = main_metric(several)
    tested = np.concatenate([check for _, check, _ in divisions])
    curve = {}
    generator = np.random.default_rng(seed)
    most = min(int(y[learn].sum(0).max()) for learn, _, _ in divisions)
    for shots in (shots for shots in SHOTS if shots < most):
        scores = np.zeros(y.shape)
        for (learn, check, _), strength in zip(divisions, crossed.strengths, strict=True):
            order = generator.permutation(learn)
            few = np.unique(np.concatenate([order[y[order, c]][:shots] for c in range(y.shape[1])]))
            if several:  # and as many without any of these labels
                rest = np.setdiff1d(order, few)
                few = np.concatenate([few, generator.permutation(rest)[: len(few)]])
            [linear] = fit.fit(x[few], y[few], several, [strength])
            scores[check] = linear.logits(x[check])
        curve[str(shots)] = metric(scores[tested], y[tested])
    return {**curve, "all": metric(crossed.methods[PROBE][tested], y[tested])}
