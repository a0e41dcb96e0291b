"""Evaluate a model during training: held-out loss, reconstruction pictures, linear probe."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints.native import Checkpoint, state_tensors
from ..config import SAMPLE_RATE
from ..corpus.bank import Bank
from ..mae import Mask, MaskedAutoencoder
from ..plots import Panel, draw
from .hardware import uncompiled
from .sampling import Batch, Sampler, split_order
from .settings import Settings
from .step import autocast

log = logging.getLogger(__name__)

PART = 64  # crops at once
PROBE_SECONDS = 10.0  # of each file
PROBE_FOLDS = 4


class Evaluation:
    """Fixed crops and labelled clips on which a model is evaluated during training.

    The crops come from held-out clips, or from training clips if none are held out. Crops and masks
    are the same at every call.
    """

    def __init__(
        self, settings: Settings, bank: Bank, fabric: Fabric, model: MaskedAutoencoder
    ) -> None:
        self.settings, self.device, self.model = settings, fabric.device, model
        single = dataclasses.replace(settings, masks=1, accumulation=1)
        try:
            self.sampler = Sampler(bank, single, held_out=True)
            held_out = settings.holdout_crops
        except ValueError:  # too few clips to hold any out, or holdout=0
            log.info("no clip is held out: no held-out loss, pictures are of training clips")
            self.sampler = Sampler(bank, single)
            held_out = 0
        self.crops = [
            range(start, min(start + PART, held_out)) for start in range(0, held_out, PART)
        ]
        pixels = settings.objective == "pixels" or settings.pixel_weight > 0
        self.shown = range(settings.pictures if pixels else 0)
        self.probe = (
            _load_probe(settings.probe, settings.model.sample_rate) if settings.probe else None
        )

    @torch.no_grad()
    def run(self, step: int) -> dict[str, float]:
        """Scores of the current model; also draws the picture of this step."""
        scores: dict[str, float] = {}
        with uncompiled():
            if self.crops:
                scores |= self._held_out()
            if self.shown:
                path = Path(self.settings.run_dir) / "pictures" / f"step-{step:09d}.png"
                rate = self.settings.model.sample_rate
                draw_reconstruction(path, *self._reconstruct(), step, rate)
            if self.probe is not None:
                embeddings = _embed(self.model, self.settings, self.device, self.probe[0])
                scores["probe/accuracy"] = linear_probe(embeddings, self.probe[1])
        return scores

    def _input(self, samples: range) -> tuple[Tensor, Mask]:
        batch: Batch = self.sampler.batch(0, samples).to(self.device)
        mask = split_order(batch.order, self.settings.mask_ratio)
        return self.sampler.spectrogram(batch), mask

    def _held_out(self) -> dict[str, float]:
        """Loss, and loss relative to that of always predicting the corpus mean."""
        total = mean_only = 0.0
        count = self.crops[-1].stop
        for samples in self.crops:
            x, mask = self._input(samples)
            with autocast(self.settings, self.device):
                loss = self.model(x, mask)
                target = self.model.target(x, mask)
            total += float(loss) * len(x)
            mean_only += float(target.square().mean()) * len(x)
        return {"held_out/loss": total / count, "held_out/loss_vs_mean": total / mean_only}

    def _reconstruct(self) -> tuple[Tensor, Tensor, Tensor]:
        """Original, masked and reconstructed spectrograms, each (b, f, t)."""
        x, mask = self._input(self.shown)
        with autocast(self.settings, self.device):
            output = self.model.reconstruct(x, mask).float()
        return x.cpu(), self.model.hide(x, mask).cpu(), output.cpu()


def _embed(
    model: MaskedAutoencoder,
    settings: Settings,
    device: torch.device,
    waveforms: list[NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Scene embeddings (n, d) by the encoder in training."""
    from ..model import HearModel
    from ..options import resolve_options

    checkpoint = Checkpoint(model.config, state_tensors(model.encoder))
    hear = HearModel(checkpoint, resolve_options(model.config, {})).to(device)
    with autocast(settings, device):
        clips = [torch.from_numpy(waveform)[None].to(device) for waveform in waveforms]
        return torch.cat([hear(clip).float().cpu() for clip in clips]).numpy()


def linear_probe(embeddings: NDArray[np.float32], labels: list[str]) -> float:
    """Cross-validated accuracy of logistic regression on standardised embeddings (n, d)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = StratifiedKFold(PROBE_FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(classifier, embeddings, labels, cv=folds).mean())


def draw_reconstruction(
    path: Path,
    original: Tensor,
    masked: Tensor,
    output: Tensor,
    step: int,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """A PNG with one row per clip: original, what the encoder sees, reconstruction (b, f, t)."""
    titles = ("original", "visible patches", f"reconstruction, step {step}")
    grid = []
    for clips in zip(original, masked, output, strict=True):
        low, high = float(clips[0].min()), float(clips[0].max())
        grid.append([Panel(t, x, low, high) for t, x in zip(titles, clips, strict=True)])
    n_mels, frames = original.shape[1:]
    draw(path, grid, n_mels, frames, sample_rate=sample_rate)


def _load_probe(folder: str, sample_rate: int) -> tuple[list[NDArray[np.float32]], list[str]]:
    """Waveforms and labels of a folder with one sub-folder per label.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there are fewer than two labels, or too few files of one.
    """
    from ..audio import find_audio, read_audio

    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"probe: no folder {folder}")
    waveforms, labels = [], []
    for sub in sorted(p for p in root.iterdir() if p.is_dir()):
        for file in find_audio([sub]):
            try:
                waveforms.append(read_audio(file, stop=PROBE_SECONDS, sample_rate=sample_rate))
            except ValueError as error:
                log.warning("probe: left out: %s", error)
                continue
            labels.append(sub.name)
    few = [name for name in set(labels) if labels.count(name) < PROBE_FOLDS]
    if len(set(labels)) < 2 or few:
        raise ValueError(
            f"probe {folder} must hold at least two sub-folders, one per label, with at least "
            f"{PROBE_FOLDS} readable audio files each; found {len(set(labels))} label(s), too few "
            f"files in {few}"
        )
    return waveforms, labels
