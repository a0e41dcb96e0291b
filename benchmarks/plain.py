"""The plain path: what one writes first, and what this package's own path is measured against.

torchaudio's front end, attention written out, one unit after the other in a Python loop, every
unit padded to its whole length. The weights and the arithmetic are those of the given model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from hear_msm_mae.config import F_MAX, F_MIN, HOP_LENGTH, LOG_EPS, SAMPLE_RATE, WINDOW_LENGTH
from hear_msm_mae.encoder import patchify
from hear_msm_mae.model import HearModel


def plain_log_mel(n_mels: int = 80) -> torch.nn.Module:
    """torchaudio's MelSpectrogram and a logarithm: (b, n) -> (b, f, t)."""
    mel = MelSpectrogram(
        SAMPLE_RATE,
        n_fft=WINDOW_LENGTH,
        hop_length=HOP_LENGTH,
        f_min=F_MIN,
        f_max=F_MAX,
        n_mels=n_mels,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.nn.Sequential(mel, _Log())


class _Log(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + LOG_EPS).log()


class PlainPath:
    """Scene and frame embeddings with the float32 weights of `model`; `autocast` for bfloat16."""

    def __init__(self, model: HearModel, autocast: bool = False) -> None:
        self.config = model.config
        self.encoder = model.encoder
        self.normalize = model.frontend.normalize
        self.log_mel = plain_log_mel(model.config.n_mels)
        self.autocast = autocast

    @torch.no_grad()
    def scene(self, audio: Tensor) -> Tensor:
        """(b, n) -> (b, d)."""
        return self.frames(audio).mean(dim=1)

    @torch.no_grad()
    def frames(self, audio: Tensor) -> Tensor:
        """(b, n) -> (b, t, d), one embedding per patch width."""
        spectrogram = self.normalize(self.log_mel(audio))  # (b, f, t)
        columns = -(-spectrogram.shape[-1] // self.config.patch_frames)
        unit_frames = self.config.unit_frames
        spectrogram = F.pad(spectrogram, (0, -spectrogram.shape[-1] % unit_frames))
        # One context for all units: autocast keeps the rounded weights until it is left.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            units = [self._encode(unit) for unit in spectrogram.split(unit_frames, dim=-1)]
        return torch.cat(units, dim=1)[:, :columns].float()

    def _encode(self, spectrogram: Tensor) -> Tensor:
        encoder = self.encoder
        x = encoder.patch_embed(patchify(spectrogram, self.config))
        x = x + encoder.positions.flatten(0, 1)
        if encoder.cls_token is not None:
            x = torch.cat([encoder.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in encoder.blocks:
            x = x + self._attention(block.attn, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        return encoder.frame_embeddings(encoder.norm(x))

    def _attention(self, attention: torch.nn.Module, x: Tensor) -> Tensor:
        b, tokens, d = x.shape
        qkv = attention.qkv(x).view(b, tokens, 3, self.config.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (b, h, l, d / h) each
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return attention.proj((weights @ v).transpose(1, 2).reshape(b, tokens, d))
