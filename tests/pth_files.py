"""What `.pth` files of the reference layout hold and compute, for the tests that read them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hear_msm_mae.checkpoints.foreign import load_any
from hear_msm_mae.encoder import Encoder

ARGS = argparse.Namespace(model="mae_vit_base", lr=1e-4, output_dir="out")


def plain_tokens(state: dict[str, Tensor], spectrogram: Tensor, heads: int) -> Tensor:
    """Encoder of the papers, from the original tensors, with explicit attention, in float64."""
    s = {name: tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def attention(x: Tensor, name: str) -> Tensor:
        if f"{name}.qkv.bias" in s:
            bias = s[f"{name}.qkv.bias"]
        else:
            q_bias = s[f"{name}.q_bias"]
            bias = torch.cat([q_bias, 0 * q_bias, s[f"{name}.v_bias"]])
        qkv = x @ s[f"{name}.qkv.weight"].T + bias
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        mixed = scores.softmax(-1) @ v
        return linear(mixed.transpose(1, 2).flatten(2), f"{name}.proj")

    kernel = s["patch_embed.proj.weight"]
    x = F.conv2d(spectrogram[:, None].double(), kernel, stride=kernel.shape[2:])
    x = x.flatten(2).transpose(1, 2) + s["patch_embed.proj.bias"]
    x = x + s["pos_embed"][:, -x.shape[1] :]
    if "cls_token" in s:
        x = torch.cat([s["cls_token"].expand(len(x), -1, -1), x], dim=1)
    for block in range(1 + max(int(n.split(".")[1]) for n in s if n.startswith("blocks."))):
        name = f"blocks.{block}"
        x = x + attention(norm(x, f"{name}.norm1"), f"{name}.attn")
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm")


def assert_same_model(path: Path, state: dict[str, Tensor], heads: int = 1) -> None:
    """The file, loaded, computes what the original tensors compute."""
    checkpoint = load_any(path)
    encoder = Encoder(checkpoint.config)
    checkpoint.load_into(encoder)
    spectrogram = torch.randn(2, checkpoint.config.n_mels, checkpoint.config.unit_frames)
    with torch.no_grad():
        actual = encoder(spectrogram).double()
    expected = plain_tokens(state, spectrogram, heads)
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5
