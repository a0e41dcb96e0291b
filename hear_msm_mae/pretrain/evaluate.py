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
from ..corpus.bank import Bank
from ..mae import Mask, MaskedAutoencoder
from ..model import HearModel
from ..options import resolve_options
from ..plots import Panel, draw
from .sampling import Sampler
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
        with torch.compiler.set_stance("force_eager"):  # other sizes would be compiled again
            if self.crops:
                scores |= self._held_out()
            if self.shown:
                self._draw(step)
            if self.probe is not None:
                waveforms, labels = self.probe
                scores["probe/accuracy"] = linear_probe(self._embed(waveforms), labels)
        return scores

    def _input(self, samples: range) -> tuple[Tensor, Mask]:
        return self.sampler.arguments(self.sampler.batch(0, samples).to(self.device))

    def _held_out(self) -> dict[str, float]:
        """Loss, and loss relative to that of always predicting the corpus mean."""
        total = mean_only = 0.0
        for samples in self.crops:
            x, mask = self._input(samples)
            with autocast(self.settings, self.device):
                loss = self.model(x, mask)
                target = self.model.target(x, mask)
            total += float(loss) * len(x)
            mean_only += float(target.square().mean()) * len(x)
        count = self.crops[-1].stop
        return {"held_out/loss": total / count, "held_out/loss_vs_mean": total / mean_only}

    def _draw(self, step: int) -> None:
        """A PNG with a row per clip: original, visible patches, reconstruction."""
        x, mask = self._input(self.shown)
        with autocast(self.settings, self.device):
            output = self.model.reconstruct(x, mask).float()
        titles = ("original", "visible patches", f"reconstruction, step {step}")
        grid = []
        for clips in zip(x.cpu(), self.model.hide(x, mask).cpu(), output.cpu(), strict=True):
            low, high = float(clips[0].min()), float(clips[0].max())
            grid.append([Panel(t, c, low, high) for t, c in zip(titles, clips, strict=True)])
        path = Path(self.settings.run_dir) / "pictures" / f"step-{step:09d}.png"
        config = self.settings.model
        draw(path, grid, config.n_mels, config.unit_frames, sample_rate=config.sample_rate)

    def _embed(self, waveforms: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Scene embeddings (n, d) by the encoder in training."""
        config = self.model.config
        checkpoint = Checkpoint(config, state_tensors(self.model.encoder))
        hear = HearModel(checkpoint, resolve_options(config, {})).to(self.device)
        with autocast(self.settings, self.device):
            clips = [torch.from_numpy(waveform)[None].to(self.device) for waveform in waveforms]
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
            except (OSError, ValueError) as error:
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
