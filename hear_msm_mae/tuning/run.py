"""A fine-tuning run: split, probe, training, test."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np

from ..answers import fit
from ..answers.evaluate import PROBE, Score, evaluated
from ..answers.features import Features, features
from ..answers.fit import Array, Division, Indices, Targets
from ..answers.head import FILE, Head
from ..answers.labels import Labelled, read_labels
from ..answers.loading import Model, loaded
from ..answers.probe import crossed, divided, few_threads, write
from ..answers.scores import interval, main_metric
from ..api import load_model
from ..checkpoints.hub import WEIGHTS_FILE, save_folder
from ..checkpoints.native import Checkpoint, state_tensors
from ..embed.settings import settings_of
from ..files import printable
from ..model import HearModel
from ..pretrain import snapshots
from .settings import PAGE, FinetuneResult, Tuning
from .train import Run, Sides

TUNED = "fine-tuned"  # among the methods


def finetuned(
    labels: str | Path,
    out: Path,
    model: Model,
    settings: Tuning,
    device: str,
    workers: int | None,
    overwrite: bool,
) -> FinetuneResult:
    """See `hear_msm_mae.tuning.finetune.finetune`."""
    labelled = read_labels(labels)
    sides_of(labelled, settings.seed)  # before anything is embedded
    there = [name for name in (FILE, WEIGHTS_FILE) if (out / name).exists()]
    if there and not overwrite and not snapshots.checkpoints(out):
        raise ValueError(
            f"{printable(out)} holds {there[0]}, but no checkpoints of fine-tuning to continue "
            "from; choose another folder, or pass --overwrite"
        )
    tuned, name = _copied(model, device)
    before = settings_of(tuned, name)
    most = max(tuned.options.layers) + 1
    if settings.blocks is not None and settings.blocks > most:
        raise ValueError(
            f"blocks is {settings.blocks}, but embeddings of these weights are read from block "
            f"{most} of {tuned.config.depth}; give at most {most}"
        )
    with snapshots.locked(out), snapshots.device_failures_named(out):
        if overwrite:
            shutil.rmtree(snapshots.checkpoint_folder(out), ignore_errors=True)
        how: dict[str, Any] = {"workers": workers, "overwrite": overwrite}
        labelled, found = features(labelled, tuned, before, out, **how)
        result = _tuned(labelled, found, tuned, settings, out, workers)
        metric, _ = main_metric(labelled.several)
        curve = f"{metric.capitalize()} (%) of the validation recordings by epoch"
        write(result, PAGE, curve, result.comparison)
    return result


def sides_of(labelled: Labelled, seed: int) -> Sides:
    """Split recordings so that no group is divided.

    Raises:
        ValueError: there are too few groups, of all recordings or of a label.
    """
    y, groups = labelled.targets, np.array(labelled.groups)
    try:
        learn, test, inner = divided(labelled, seed)[0]
        if "valid" in labelled.splits:
            train, valid = inner[0]
        else:
            train, valid = fit.folds(y[learn], groups[learn], fit.OUTER_FOLDS, seed + 1)[0]
            train, valid = learn[train], learn[valid]
    except ValueError as error:
        if not labelled.splits:
            raise
        raise ValueError(
            "there is no validation group to say when to stop, and the recordings to learn from "
            f"cannot be divided ({error}); write 'valid' for some rows into the column 'split'"
        ) from error
    sizes = [len(np.unique(groups[y[:, c]])) for c in range(y.shape[1])]
    least = 0 if labelled.several or labelled.splits else len(Sides._fields)
    lacking = [
        f"{name!r} ({y[:, c].sum()} recordings in {sizes[c]} groups)"
        for c, name in enumerate(labelled.names)
        if sizes[c] < least or not y[train, c].any()
    ]
    if lacking:
        raise ValueError(
            f"too few recordings to learn from of {', '.join(lacking)}: a label needs some of at "
            "least three groups (or files), to learn from, to stop by and to test; label more, or "
            "leave the label out"
        )
    return Sides(train, valid, test)


def _tuned(
    labelled: Labelled,
    found: Features,
    model: HearModel,
    settings: Tuning,
    out: Path,
    workers: int | None,
) -> FinetuneResult:
    train, valid, test = sides = sides_of(labelled, settings.seed)
    x, y, several = found.embeddings, labelled.targets, labelled.several
    # The probe that is compared is finally trained on the validation recordings too.
    division = Division(np.concatenate([train, valid]), test, [(train, valid)])
    with few_threads(labelled):
        compared = crossed(labelled, found, [division])
        [start] = fit.fit(x[train], y[train], several, compared.strengths)
    run = Run(settings, model, labelled, x, sides, start, out, workers)
    if (number := run.train()) is not None:  # end in the way of the signal
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
    save_folder(out, _checkpoint(model))
    saved = load_model(out, device=model.device)  # scores are those of the files that users load
    best, linear = run.best.epoch, run.network.linear()
    if best:
        rest = np.concatenate([valid, test])
        logits = np.zeros(y.shape)
        logits[rest] = run.logits(saved, rest)
        temperature, _ = fit.calibrate(logits[valid], y[valid], several)
        tuned = fit.probabilities(logits / temperature, several)
    else:  # nothing was gained: the probe has learnt from more recordings
        tuned, linear = compared.methods[PROBE], compared.linear
        temperature = compared.temperature
    stored = settings_of(saved, WEIGHTS_FILE).stored()
    head = Head(labelled.names, several, linear, temperature, stored)
    curve = {str(epoch): look.score for epoch, look in enumerate(run.history)}
    methods = {TUNED: tuned, **compared.methods}
    result = evaluated(labelled, found, [division], methods, head, curve, out, settings.seed)
    if not best:
        result.warnings.append(
            "no epoch was better than the start on the validation recordings; the encoder is that "
            "of the weights, and the classifier the probe"
        )
    gain = _gain(tuned, compared.methods[PROBE], labelled, test)
    return FinetuneResult(**vars(result), best_epoch=best, gain=gain)


def _gain(tuned: Array, probe: Array, labelled: Labelled, test: Indices) -> Score:
    """Difference of the scores, with a paired bootstrap over groups."""
    name, metric = main_metric(labelled.several)
    count = tuned.shape[1]

    def difference(both: Array, y: Targets) -> float:
        return metric(both[:, :count], y) - metric(both[:, count:], y)

    both, y = np.concatenate([tuned, probe], axis=1)[test], labelled.targets[test]
    low, high = interval(difference, both, y, np.array(labelled.groups)[test])
    return Score(name, difference(both, y), low, high)


def _copied(model: Model, device: str) -> tuple[HearModel, str]:
    """A copy of the model that can be trained, and the name of its weights.

    Raises:
        ValueError: trained weights cannot keep one of its options.
    """
    found, name = loaded(model, device)
    found.checkpoint()  # refuses ONNX files, which can only embed
    options = found.options
    if (
        options.mode != "default"
        or options.precision != "float32"
        or options.normalization == "batch"
        or len(options.layers) > 1
    ):
        raise ValueError(
            "fine-tuning needs a model with mode='default', precision='float32', one layer and "
            "stored normalization; load it without these options"
        )
    if not isinstance(model, (str, Path)):
        found = copy.deepcopy(found).to(device)
    return found, name


def _checkpoint(model: HearModel) -> Checkpoint:
    """The trained encoder with its options as defaults; the old decoder no longer fits it."""
    options = model.options
    config = dataclasses.replace(
        model.checkpoint().config,
        layer=options.layers[0],
        embedding_scale=options.scale,
        scene_pooling=options.scene_pooling,
    )
    return Checkpoint(config, state_tensors(model.encoder))
