"""hear-msm-mae info."""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer

from .common import say, starting


def info(weights: Annotated[str, typer.Argument(help="Weights file.")] = "") -> None:
    """Show sizes, statistics and defaults of a weights file."""
    with starting():
        from ..checkpoints.foreign import load_any
        from ..checkpoints.hub import find_weights
        from ..timeline import valid_hops_ms

        path = find_weights(weights)
        checkpoint = load_any(path)
    config = checkpoint.config
    count = {
        part: sum(tensor.numel() for tensor in checkpoint.part(f"{part}.").values())
        for part in ("encoder", "decoder")
    }
    decoder = f"{count['decoder'] / 1e6:.1f} M parameters" if checkpoint.has_decoder else "none"
    if checkpoint.has_decoder and config.norm_pixels:
        decoder += ", predicts normalised patches"
    rows = {
        "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "name": config.name,
        "input": f"{config.n_mels} mel bins x {config.unit_frames} frames, {config.sample_rate} Hz",
        "patch": f"{config.patch_mels} x {config.patch_frames} ({config.native_hop_ms} ms)",
        "encoder": f"{config.width}-d, {config.depth} blocks, {config.heads} heads, "
        f"{'CLS' if config.cls_token else 'no CLS'}, {count['encoder'] / 1e6:.1f} M parameters",
        "decoder": decoder,
        "layer": "last" if config.layer is None else f"{config.layer} of 0 to {config.depth - 1}",
        "statistics": f"mean {config.norm_mean:.4f}, std {config.norm_std:.4f}",
        "embedding size": config.frame_embedding_size,
        "embedding scale": f"{config.embedding_scale:g}",
        "scene pooling": config.scene_pooling,
        "timestamp hops": f"{', '.join(map(str, valid_hops_ms(config)))} ms",
    }
    for key, value in rows.items():
        say(f"{key:16s} {value}")
