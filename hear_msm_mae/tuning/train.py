"""The training loop of fine-tuning, with the steps and checkpoints of pretraining."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..answers.fit import Array, Indices, Linear, calibrate
from ..answers.labels import Labelled
from ..answers.scores import main_metric
from ..embed.records import embed_files
from ..model import HearModel
from ..pretrain import snapshots
from ..pretrain.hardware import denormals_flushed, faster_precision, launch, set_attention
from ..pretrain.settings import warmed_cosine
from ..pretrain.signals import Signals
from ..pretrain.step import Stepper, parameter_groups
from .crops import Crops, spectrograms
from .network import Network
from .settings import Tuning

log = logging.getLogger(__name__)

FORMAT = "hear_msm_mae fine-tuning checkpoint 1"
KEPT = 2  # number of checkpoints; several, in case one is damaged
# Settings that may change when a run continues: they do not change what is learnt.
CHANGEABLE = ("checkpoint_minutes",)


class Placing(NamedTuple):
    """Devices for `launch`."""

    accelerator: str
    devices: Any
    nodes: int = 1


class Sides(NamedTuple):
    """Indices of the training, validation and test recordings."""

    train: Indices
    valid: Indices
    test: Indices


class Look(NamedTuple):
    """Scores of the validation recordings after an epoch."""

    loss: float  # of calibrated probabilities
    score: float


class Best(NamedTuple):
    """The best epoch so far (0 is before the first step), and its parameters."""

    epoch: int
    learnt: dict[str, Tensor]


class Run:
    """A run in a folder, which continues from its newest checkpoint.

    Args:
        settings: the settings.
        model: the model whose encoder is trained in place.
        labelled: all recordings; embeddings: (n, d) of them.
        sides: which of them are for training, validation and test.
        start: the probe that the classifier starts as.
        folder: folder of the checkpoints.
        workers: number of threads that decode.

    Attributes:
        history: scores of the validation recordings at the start and after each epoch.
        best: the best epoch.

    Raises:
        ValueError: the folder has checkpoints of another run, or none of them can be read; several
            processes were started.
    """

    def __init__(
        self,
        settings: Tuning,
        model: HearModel,
        labelled: Labelled,
        embeddings: NDArray[np.floating],
        sides: Sides,
        start: Linear,
        folder: Path,
        workers: int | None,
    ) -> None:
        device = model.device
        self.fabric = launch(Placing(device.type, 1 if device.index is None else [device.index]))
        if self.fabric.world_size > 1:
            raise ValueError("fine-tuning takes one process; start it without torchrun")
        state = resumed(folder)
        if settings.precision == "auto":
            choice = state["settings"]["precision"] if state else faster_precision(device.type)
            settings = dataclasses.replace(settings, precision=choice)
        self.settings, self.folder, self.workers = settings, folder, workers
        self.labelled, self.targets, self.sides = labelled, labelled.targets, sides
        digest = hashlib.sha256()
        for array in (embeddings, self.targets, *sides):
            digest.update(np.ascontiguousarray(array).data)
        self.data = digest.hexdigest()  # fingerprint of weights, recordings and labels
        network = Network(model, start, embeddings[sides.train], labelled.several)
        network.freeze(settings.blocks)
        set_attention(network, device.type != "cpu" or settings.precision == "fp32")
        groups = parameter_groups(
            network, settings.weight_decay, lambda n: settings.layer_decay ** network.depth(n)
        )
        self.network = network
        self.update = Stepper(settings, self.fabric, network, groups, network.arguments)
        self.step, self.history, self.best = 0, list[Look](), Best(0, {})
        if state is not None:
            _check_same(folder, state, settings, self.data)
            self.step, self.history = state["step"], [Look(*x) for x in state["history"]]
            self.best = Best(state["best_epoch"], state["best"])
            network.restore(state["learnt"])
            if state["optimizer"]:
                self.update.load_state(state["optimizer"])

    @property
    def done(self) -> bool:
        """Whether the last epoch is reached, or patience is exhausted."""
        epoch = len(self.history) - 1
        s = self.settings
        return epoch == s.epochs or epoch - self.best.epoch >= s.patience

    def train(self) -> int | None:
        """Train until the end, and then load the parameters of the best epoch.

        Returns:
            The number of the signal that ended the run before; a checkpoint was written.
        """
        s = self.settings
        if not self.done:
            train, saved = self.sides.train, time.monotonic()
            recordings = self.labelled.select(train).recordings
            frames = spectrograms(recordings, self.network.model, self.workers)
            crops = Crops(frames, self.targets[train], s)
            with Signals() as signals, denormals_flushed():
                while signals.number is None:
                    if self.step == crops.steps * len(self.history):
                        self._look()
                    if self.done:
                        break
                    batch = crops(self.step).map(self.fabric.to_device)
                    length = float(s.epochs * crops.steps)
                    self.update([batch], s.lr * warmed_cosine(self.step, length, s.warmup * length))
                    self.step += 1
                    if time.monotonic() - saved >= 60 * s.checkpoint_minutes:
                        self._checkpoint()
                        saved = time.monotonic()
                self._checkpoint()
            if not self.done:
                return signals.number
        self.network.restore(self.best.learnt)
        return None

    def _look(self) -> None:
        """Validate the network after an epoch."""
        report, epoch = self.update.report(), len(self.history)
        if report.skipped:
            raise ValueError(
                f"loss or gradient was NaN or infinite in {report.skipped} steps up to epoch "
                f"{epoch}; lower the learning rate (lr={self.settings.lr})"
            )
        valid = self.sides.valid
        logits, y = self.logits(self.network.model, valid), self.targets[valid]
        _, metric = main_metric(self.labelled.several)
        _, loss = calibrate(logits, y, self.labelled.several)
        look = Look(loss, metric(logits, y))
        self.history.append(look)
        if not epoch or look.loss < self.history[self.best.epoch].loss:
            learnt = {name: value.clone() for name, value in self.network.learnt().items()}
            self.best = Best(epoch, learnt)
        log.info(
            "epoch %d of %d: training loss %.4f, validation loss %.4f, score %.3f; best epoch %d",
            epoch,
            self.settings.epochs,
            report.loss,
            *look,
            self.best.epoch,
        )

    def logits(self, model: HearModel, some: Indices) -> Array:
        """Logits of some of the recordings by the current classifier: (k, c)."""
        recordings = self.labelled.select(some).recordings
        found = embed_files(recordings, model, workers=self.workers)
        return self.network.linear().logits(np.stack([record.embedding for record in found]))

    def _checkpoint(self) -> None:
        content = {
            "format": FORMAT,
            "step": self.step,
            "history": [list(look) for look in self.history],
            "best_epoch": self.best.epoch,
            "best": self.best.learnt,
            # What nothing is learnt from any more is left out.
            "learnt": {} if self.done else self.network.learnt(),
            "optimizer": {} if self.done else self.update.optimizer.state_dict(),
            "settings": dataclasses.asdict(self.settings),
            "data": self.data,
        }
        snapshots.write(self.folder, self.step, content, KEPT)


def resumed(folder: Path) -> dict[str, Any] | None:
    """The content of the newest checkpoint of a folder."""
    return snapshots.latest(folder, lambda path: snapshots.read(path, FORMAT))


def _check_same(folder: Path, state: dict[str, Any], settings: Tuning, data: str) -> None:
    """Raise ValueError if settings differ; the message has their old and new values."""
    now = dataclasses.asdict(settings)
    changed = snapshots.differences(state["settings"], now, CHANGEABLE)
    if state["data"] != data:
        changed.append("weights, recordings or labels are others")
    if changed:
        raise ValueError(
            f"{folder} holds a run that cannot be continued: {'; '.join(changed)}. Set it back, "
            "choose another folder, or pass --overwrite"
        )
