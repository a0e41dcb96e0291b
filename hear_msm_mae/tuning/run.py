"""A fine-tuning run: split, probe, training, test."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..answers import fit
from ..answers.evaluate import evaluated, metrics_of, write
from ..answers.features import Features, features
from ..answers.fit import Array, Indices, Targets
from ..answers.head import FILE, Head
from ..answers.labels import Labelled, read_labels
from ..answers.loading import Model, loaded
from ..answers.probe import crossed, few_threads, still_labelled
from ..answers.results import PROBE, Score
from ..answers.scores import Metric, interval
from ..api import load_model
from ..checkpoints.hub import WEIGHTS_FILE, save_folder
from ..checkpoints.native import Checkpoint, state_tensors
from ..embed.records import embed_files
from ..embed.settings import settings_of
from ..files import printable
from ..model import HearModel
from ..pretrain import snapshots
from ..pretrain.hardware import denormals_flushed, faster_precision, launch, set_attention
from .crops import Crops, write_frames
from .network import Network
from .results import PAGE, FinetuneResult
from .settings import Tuning
from .sides import sides_of
from .train import Look, Run, resumed, stop

TUNED = "fine-tuned"  # among the methods
FRAMES = "frames.f16"


class _Placing(NamedTuple):
    """Devices for `launch`."""

    accelerator: str
    devices: Any
    nodes: int = 1


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
    _require_place(out, overwrite)
    tuned, name = _copied(model, device)
    before = settings_of(tuned, name)
    Network.require_blocks(tuned, settings.blocks)
    with snapshots.locked(out), snapshots.device_failures_named(out):
        if overwrite:
            shutil.rmtree(snapshots.checkpoint_folder(out), ignore_errors=True)
        how: dict[str, Any] = {"workers": workers, "overwrite": overwrite}
        found, summary = features(labelled.recordings, tuned, before, out, **how)
        labelled = still_labelled(labelled, found, summary)
        result = _tuned(labelled, found, tuned, settings, out, workers)
        result.failures, result.out = summary.failures, out
        curve = f"{result.gain.name.capitalize()} (%) of the validation recordings by epoch"
        write(result, PAGE, curve, result.comparison)
    return result


def _tuned(
    labelled: Labelled,
    found: Features,
    model: HearModel,
    settings: Tuning,
    out: Path,
    workers: int | None,
) -> FinetuneResult:
    sides = sides_of(labelled, settings.seed)
    x, y, several = found.embeddings, labelled.targets, labelled.several
    metric_name, metric = next(iter(metrics_of(several).items()))
    with few_threads(len(y)):
        compared = crossed(labelled, found, [sides.division])
        # This is not the probe that is compared, which was also trained on `valid`.
        [probe] = fit.fit(x[sides.train], y[sides.train], several, compared.strengths)
    fabric = launch(_Placing(*_place(model.device)))
    if fabric.world_size > 1:
        raise ValueError("fine-tuning takes one process; start it without torchrun")
    if settings.precision == "auto":
        state = resumed(out)
        choice = state["settings"]["precision"] if state else faster_precision(model.device.type)
        settings = dataclasses.replace(settings, precision=choice)
    network = Network(model, probe, x[sides.train], several)
    network.freeze(settings.blocks)
    set_attention(network, model.device.type != "cpu" or settings.precision == "fp32")

    def validate() -> Look:
        logits = network.linear().logits(_embedded(labelled.select(sides.valid), model, workers))
        _, loss = fit.calibrate(logits, y[sides.valid], several)
        return Look(loss, metric(logits, y[sides.valid], np.ones(len(logits))))

    def crops() -> Crops:
        frames = write_frames(out / FRAMES, labelled.select(sides.train).recordings, model, workers)
        return Crops(frames, y[sides.train], settings)

    data = _fingerprint(x, y, *sides)
    run = Run(settings, fabric, network, crops, validate, out, data)
    with denormals_flushed():
        if (interrupted := run.train()) is not None:
            stop(interrupted)
    (out / FRAMES).unlink(missing_ok=True)
    save_folder(out, _checkpoint(model))
    saved = load_model(out, device=model.device)  # scores are those of the files that users load
    rest = np.concatenate([sides.valid, sides.test])
    logits = np.zeros(y.shape)
    logits[rest] = network.linear().logits(_embedded(labelled.select(rest), saved, workers))
    temperature, _ = fit.calibrate(logits[sides.valid], y[sides.valid], several)
    tuned, linear = fit.probabilities(logits / temperature, several), network.linear()
    if not run.best.epoch:  # nothing was gained: the probe has learnt from more recordings
        tuned, linear = compared.methods[PROBE], compared.linear
        temperature = compared.temperature
    stored = settings_of(saved, WEIGHTS_FILE).stored()
    head = Head(labelled.names, several, linear, temperature, stored)
    outer = [(sides.division.learn, sides.test)]
    result = evaluated(
        labelled, found, outer, {TUNED: tuned, **compared.methods}, head, settings.seed
    )
    result.curve = {str(epoch): look.score for epoch, look in enumerate(run.history)}
    best = run.best.epoch
    if not best:
        result.warnings.append(
            "no epoch was better than the start on the validation recordings; the encoder is that "
            "of the weights, and the classifier the probe"
        )
    gain = _gain(metric_name, metric, tuned, compared.methods[PROBE], labelled, sides.test)
    return FinetuneResult(**vars(result), best_epoch=best, gain=gain)


def _embedded(labelled: Labelled, model: HearModel, workers: int | None) -> NDArray[np.floating]:
    found = embed_files(labelled.recordings, model, workers=workers)
    return np.stack([record.embedding for record in found])


def _gain(
    name: str, metric: Metric, tuned: Array, probe: Array, labelled: Labelled, test: Indices
) -> Score:
    """Difference of the scores, with a paired bootstrap over groups."""
    count = tuned.shape[1]

    def difference(both: Array, y: Targets, weight: Array) -> float:
        return metric(both[:, :count], y, weight) - metric(both[:, count:], y, weight)

    both, y = np.concatenate([tuned, probe], axis=1)[test], labelled.targets[test]
    value = difference(both, y, np.ones(len(y)))
    return Score(name, value, *interval(difference, both, y, np.array(labelled.groups)[test]))


def _copied(model: Model, device: str) -> tuple[HearModel, str]:
    """A copy of the model that can be trained, and the name of its weights.

    Raises:
        ValueError: trained weights cannot keep one of its options.
    """
    found, name = loaded(model, device)
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


def _place(device: torch.device) -> tuple[str, Any]:
    return device.type, 1 if device.index is None else [device.index]


def _fingerprint(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _require_place(out: Path, overwrite: bool) -> None:
    """Raise ValueError if the folder has results that would be replaced."""
    there = [name for name in (FILE, WEIGHTS_FILE) if (out / name).exists()]
    if there and not overwrite and not snapshots.checkpoints(out):
        raise ValueError(
            f"{printable(out)} holds {there[0]}, but no checkpoints of fine-tuning to continue "
            "from; choose another folder, or pass --overwrite"
        )
