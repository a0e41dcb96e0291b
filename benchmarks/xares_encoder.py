"""This package in X-ARES: frame embeddings every 40 ms, of recordings of any length.

    pip install . xares
    python -m xares.run --max-jobs 8 benchmarks/xares_encoder.py xares/src/tasks/*.py

X-ARES makes the encoder without arguments, so other weights than those of the package are given in
the environment: MSM_MAE_WEIGHTS=my-model. xares 0.1.3 asks for torch 2.2.1 and torchaudio 2.2.1 or
later, this package for torch 2.6; checked with torch 2.14.1 and torchaudio 2.11.0.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

import hear_msm_mae


class MsmMaeEncoder(nn.Module):
    """What `xares.audio_encoder_checker.check_audio_encoder` accepts.

    Args:
        weights: for `hear_msm_mae.load_model`; by default those that MSM_MAE_WEIGHTS names.

    Attributes:
        sampling_rate: of the waveforms, in Hz.
        output_dim: values in a frame embedding.
        hop_size_in_ms: distance of the frames.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        weights = os.environ.get("MSM_MAE_WEIGHTS", "") if weights is None else weights
        self.model = hear_msm_mae.load_model(weights)
        self.sampling_rate = self.model.sample_rate
        self.output_dim = self.model.timestamp_embedding_size
        self.hop_size_in_ms = self.model.options.timestamp_hop_ms

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """(b, n) or (n,) waveforms in [-1, 1] -> (b, t, d) float32."""
        batch = audio[None] if audio.ndim == 1 else audio
        embeddings, _ = self.model.timestamp_embeddings(batch)
        return embeddings
