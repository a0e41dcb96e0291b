"""The peers' runtime, against which this package's speed is measured.

This is how the published models of this family embed audio: torchaudio's log-mel, timm's blocks
with fused attention, the whole batch at once, one unit after the other in a Python loop, the last
unit at its length rounded up to a patch. The weights are those of the given model.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from hear_msm_mae.config import F_MAX, F_MIN, HOP_LENGTH, LOG_EPS, SAMPLE_RATE, WINDOW_LENGTH
from hear_msm_mae.encoder import NORM_EPS, Encoder, patchify
from hear_msm_mae.model import HearModel


class PlainLogMel(nn.Module):
    """torchaudio's MelSpectrogram and a logarithm: (b, n) -> (b, f, t)."""

    def __init__(self, n_mels: int = 80) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            SAMPLE_RATE,
            n_fft=WINDOW_LENGTH,
            hop_length=HOP_LENGTH,
            f_min=F_MIN,
            f_max=F_MAX,
            n_mels=n_mels,
            norm="slaney",
            mel_scale="slaney",
        )

    def forward(self, audio: Tensor) -> Tensor:
        """The log-mel: (b, n) -> (b, f, t)."""
        return (self.mel(audio) + LOG_EPS).log()


def timm_blocks(encoder: Encoder) -> nn.ModuleList:
    """Blocks of timm with the weights of an encoder, in float32."""
    config = encoder.config
    blocks = nn.ModuleList()
    for ours in encoder.blocks:
        state = ours.state_dict()
        q_bias, v_bias = state.pop("attn.qkv.q_bias"), state.pop("attn.qkv.v_bias")
        state["attn.qkv.bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        norm = partial(nn.LayerNorm, eps=NORM_EPS)
        block = Block(config.width, config.heads, config.mlp_ratio, True, norm_layer=norm)
        block.load_state_dict(state, assign=True)  # the same memory
        blocks.append(block)
    return blocks.to(encoder.positions.device)


class PlainPath:
    """Scene and frame embeddings of the layers and in the scale that `model` has.

    Args:
        model: with float32 weights.
        autocast: compute in bfloat16.
    """

    def __init__(self, model: HearModel, autocast: bool = False) -> None:
        self.config, self.options, self.autocast = model.config, model.options, autocast
        self.encoder = model.encoder  # for the patches, the positions and the last LayerNorm
        self.blocks = timm_blocks(model.encoder).eval()
        self.log_mel = PlainLogMel(model.config.n_mels).to(model.device)

    @torch.no_grad()
    def scene(self, audio: Tensor) -> Tensor:
        """(b, n) -> (b, d), the mean over time."""
        return self.frames(audio).mean(dim=1)

    @torch.no_grad()
    def frames(self, audio: Tensor) -> Tensor:
        """(b, n) -> (b, t, d), one embedding per patch width."""
        device = self.encoder.positions.device
        log_mel = self.log_mel(audio.to(device))
        spectrogram = (log_mel - self.config.norm_mean) / self.config.norm_std  # (b, f, t)
        spectrogram = F.pad(spectrogram, (0, -spectrogram.shape[-1] % self.config.patch_frames))
        units = spectrogram.split(self.config.unit_frames, dim=-1)
        # One context for all units: autocast keeps the rounded weights until it is left.
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            return torch.cat([self._encode(unit) for unit in units], dim=1).float()

    def _encode(self, spectrogram: Tensor) -> Tensor:
        encoder, columns = self.encoder, spectrogram.shape[-1] // self.config.patch_frames
        x = encoder.patch_embed(patchify(spectrogram, self.config))
        x = x + encoder.positions[:, :columns].flatten(0, 1)
        if encoder.cls_token is not None:
            x = torch.cat([encoder.cls_token.expand(len(x), -1, -1), x], dim=1)
        outputs = []
        for block in self.blocks[: max(self.options.layers) + 1]:
            x = block(x)
            outputs.append(x)
        if len(outputs) == len(self.blocks):
            outputs[-1] = encoder.norm(x)
        found = [encoder.frame_embeddings(outputs[i]) for i in self.options.layers]
        return torch.cat(found, dim=-1) * self.options.scale
