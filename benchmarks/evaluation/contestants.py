"""What is compared: models of this package, simple features, and published models."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints.native import Checkpoint, state_tensors
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.log_mel import LogMel
from hear_msm_mae.model import HearModel
from hear_msm_mae.options import resolve_options

Embed = Callable[[Tensor], Tensor]
BATCH_SECONDS = 64.0


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A way to embed clips.

    `fingerprint` names everything that the embeddings depend on; they are cached under it.
    `prepare` does what takes long (loading, imports) and returns the function
    (b, n) at 16 kHz -> (b, d).
    """

    name: str
    fingerprint: str
    prepare: Callable[[], Embed]

    def embeddings(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, samples) -> (n, d)."""
        embed = self.prepare()
        size = max(1, int(BATCH_SECONDS * 16_000 / waveforms.shape[1]))
        with torch.no_grad():
            parts = [embed(batch) for batch in torch.from_numpy(waveforms).split(size)]
        return torch.cat(parts).float().numpy()


def file_digest(path: Path) -> str:
    """Fingerprint of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def weights(path: Path, options: Mapping[str, Any], name: str | None = None) -> Contestant:
    """A weights file of this package, with options of `load_model`."""
    text = json.dumps(dict(options), sort_keys=True) if options else ""

    def prepare() -> Embed:
        model = load_model(path, **options)
        return lambda audio: get_scene_embeddings(audio, model)

    return Contestant(name or path.stem + text, f"weights-{file_digest(path)}{text}", prepare)


def untrained(config: ModelConfig, seed: int, options: Mapping[str, Any]) -> Contestant:
    """A model of this package as it is before training."""
    text = config.to_json() + json.dumps(dict(options), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    def prepare() -> Embed:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            checkpoint = Checkpoint(config, state_tensors(Encoder(config)))
            model = HearModel(checkpoint, resolve_options(config, options))
        return lambda audio: get_scene_embeddings(audio, model)

    return Contestant("untrained", f"untrained-{digest}-{seed}", prepare)


def log_mel() -> Contestant:
    """Mean and standard deviation over time of 80 log-mel bands: 160 values."""

    def prepare() -> Embed:
        front_end = LogMel()
        return lambda audio: mean_and_std(front_end.log_mel(audio))

    return Contestant("logmel", "logmel-1", prepare)


def mfcc() -> Contestant:
    """Mean and standard deviation over time of 20 cepstral coefficients of the same bands."""

    def prepare() -> Embed:
        from torchaudio.functional import create_dct

        front_end, basis = LogMel(), create_dct(20, 80, "ortho")  # basis (80, 20)
        return lambda audio: mean_and_std((front_end.log_mel(audio).mT @ basis).mT)

    return Contestant("mfcc", "mfcc-1", prepare)


def mean_and_std(features: Tensor) -> Tensor:
    """(b, f, t) -> (b, 2 f)."""
    return torch.cat([features.mean(dim=-1), features.std(dim=-1, correction=0)], dim=-1)
