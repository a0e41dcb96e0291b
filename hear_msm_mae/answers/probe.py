"""A classifier on labelled recordings: how good it is, where it fails, and what to doubt."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..embed.settings import settings_of
from ..extras import need
from ..files import printable, replacing
from . import fit
from . import scores as measures
from .doubts import doubts
from .features import Features, features
from .fit import NEIGHBOURS, Array, Folds, Indices, Targets
from .head import Head
from .labels import Labelled, read_labels
from .loading import Model, loaded
from .probe_page import probe_page
from .results import PROBE, LabelScore, Mistake, ProbeResult, Score
from .scores import Metric

PAGE = "probe.html"
KNN = f"{NEIGHBOURS} nearest neighbours"
LOG_MEL = "linear probe on log-mel statistics"
CONSTANT = "always the most frequent label"
SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # labelled recordings of each label
BINS = 10
FEW_THREADS = 2000  # recordings below which one thread fits


class _Division(NamedTuple):
    """Places of the recordings to learn from and to test; inner folds choose the strength."""

    learn: Indices
    check: Indices
    inner: Folds


class _Outcome(NamedTuple):
    """Probabilities (n, c) of recordings that were not learnt from, and the strengths chosen."""

    scores: Array
    strengths: list[float]


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
    """Learn to label recordings, and say how well it works on recordings that were not learnt from.

    Without a column `split` the recordings are divided into five folds over whole groups, and each
    fold is labelled by a classifier that learnt from the others; regularisation is chosen on folds
    inside those. With it, the score is that of `test`.

    Args:
        labels: see `hear_msm_mae.answers.labels.read_labels`.
        out: folder for `head.safetensors`, `labels.json`, `probe.html` and the embeddings, which a
            second run takes from there.
        model: from `load_model`, or weights for it.
        device: where to embed.
        seed: of the folds.
        workers: threads that read.
        overwrite: embed again, whatever the folder holds.

    Raises:
        FileNotFoundError, ValueError: see `read_labels`; too few recordings; embeddings of another
            model in the folder.
    """
    need("sklearn", "answers", "probes")
    need("pyarrow.parquet", "answers", "probes")
    labelled = read_labels(labels)
    _divided(labelled, seed)  # before anything is embedded
    model, name = loaded(model, device)
    out = Path(out)
    settings = settings_of(model, name)
    found, summary = features(
        labelled.recordings, model, settings, out, workers=workers, overwrite=overwrite
    )
    labelled = labelled.select(found.kept.tolist())
    if len(labelled.names) < 2 - labelled.several:
        raise ValueError(
            f"only recordings of {labelled.names} could be read, a classifier needs two labels; "
            f"see {printable(str(summary.failures_file))}"
        )
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    # Threads cost more than they bring where the matrices are small, much more on a busy machine.
    with threadpool_limits(1 if len(found.kept) < FEW_THREADS else None):
        result = _evaluated(labelled, found, settings.stored(), seed)
    result.failures, result.out = summary.failures, out
    with replacing(out / PAGE) as temporary:
        temporary.write_text(probe_page(result), "utf-8")
    about = {
        "temperature": result.head.temperature,
        "recordings": result.recordings,
        "scores": {k: [x._asdict() for x in scores] for k, scores in result.scores.items()},
        "warnings": result.warnings,
    }
    result.head.save(out, about)
    return result


def _divided(labelled: Labelled, seed: int) -> list[_Division]:
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
        return [_Division(learn, check, inside(learn)) for learn, check in outer]
    splits = np.array(labelled.splits)
    train, valid, test = (np.flatnonzero(splits == x) for x in ("train", "valid", "test"))
    if not len(train) or not len(test):
        raise ValueError("no recordings are left of one side of the split")
    inner = [(train, valid)] if len(valid) else inside(train)
    return [_Division(np.concatenate([train, valid]), test, inner)]


def _evaluated(
    labelled: Labelled, found: Features, settings: dict[str, object], seed: int
) -> ProbeResult:
    y, groups, several = labelled.targets, np.array(labelled.groups), labelled.several
    divisions = _divided(labelled, seed)
    outer = [(learn, check) for learn, check, _ in divisions]

    def crossed(x: NDArray[np.floating]) -> tuple[_Outcome, tuple[float, fit.Linear]]:
        scores, strengths = np.zeros(y.shape), []
        for _, check, inner in divisions:
            strength, temperature, linear = fit.choose(x, y, several, inner)
            scores[check] = fit.probabilities(linear.logits(x[check]) / temperature, several)
            strengths.append(strength)
        return _Outcome(scores, strengths), (temperature, linear)

    x = found.embeddings
    outcome, (temperature, linear) = crossed(x)
    if labelled.splits is None:  # else the head is the classifier that was tested
        inner = fit.folds(y, groups, fit.INNER_FOLDS, seed + 1)
        _, temperature, linear = fit.choose(x, y, several, inner)
    tested = np.concatenate([check for _, check in outer])
    nearest, constant = np.zeros(y.shape), np.tile(y.mean(0), (len(y), 1))
    for learn, check in outer:
        nearest[check] = fit.neighbours(x, y, learn, check)
    metrics: dict[str, Metric] = {
        "accuracy": measures.accuracy,
        "balanced accuracy": measures.balanced_accuracy,
    }
    if several:
        metrics = {"mean average precision": measures.mean_average_precision}
    methods = {
        PROBE: outcome.scores,
        KNN: nearest,
        LOG_MEL: crossed(found.log_mel)[0].scores,
        CONSTANT: constant,
    }
    ones = np.ones(len(tested))
    scores = {
        method: [
            Score(
                name,
                metric(values[tested], y[tested], ones),
                *measures.interval(metric, values[tested], y[tested], groups[tested], seed),
            )
            for name, metric in metrics.items()
        ]
        for method, values in methods.items()
    }
    curve = _curve(x, y, several, outer, outcome.strengths, next(iter(metrics.values())), seed)
    curve["all"] = scores[PROBE][0].value
    predicted = outcome.scores[tested].argmax(1)
    confusion = None
    if not several:
        confusion = np.zeros((y.shape[1], y.shape[1]), np.int64)
        np.add.at(confusion, (y[tested].argmax(1), predicted), 1)
    head = Head(labelled.names, several, linear, temperature, dict(settings))
    return ProbeResult(
        head,
        scores,
        _per_label(labelled, outcome.scores, tested, confusion),
        confusion,
        curve,
        _calibration_error(outcome.scores[tested], y[tested], several),
        doubts(labelled, found, outer, scores[PROBE][0], scores[LOG_MEL][0]),
        _mistakes(labelled, found, outcome.scores, tested),
        [],
        len(y),
        Path(),
    )


def _curve(
    x: NDArray[np.floating],
    y: Targets,
    several: bool,
    outer: Folds,
    strengths: list[float],
    metric: Metric,
    seed: int,
) -> dict[str, float]:
    """The score of classifiers that learnt from a few recordings of each label."""
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
