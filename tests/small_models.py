"""Models of any size with seeded random weights."""

from __future__ import annotations

from typing import Any

import torch

from hear_msm_mae.checkpoints.native import Checkpoint, state_tensors
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.model import HearModel
from hear_msm_mae.options import resolve_options

SIZES = {"width": 48, "depth": 2, "heads": 3}


def small_model(config: ModelConfig | None = None, **options: Any) -> HearModel:
    """Two calls with one configuration differ in their options alone."""
    config = config or ModelConfig(**SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        checkpoint = Checkpoint(config, state_tensors(Encoder(config)))
    return HearModel(checkpoint, resolve_options(config, options))
