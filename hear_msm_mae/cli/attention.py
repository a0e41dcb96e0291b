"""hear-msm-mae attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    CLIP_SECONDS,
    Device,
    Picture,
    Seconds,
    Start,
    Weights,
    load_clip,
    require_suffix,
    say,
)


def attention(
    audio: Annotated[Path, typer.Argument(help="Audio file.")],
    output: Picture,
    weights: Weights = "",
    block: Annotated[int, typer.Option(help="Index of the block; negative from the end.")] = -1,
    queries: Annotated[
        str,
        typer.Option(help="Tokens that attend: patches (the mean of all) or cls (the CLS token)."),
    ] = "patches",
    start: Start = 0.0,
    seconds: Seconds = CLIP_SECONDS,
    device: Device = "cpu",
) -> None:
    """Draw how much attention each patch of a recording gets, in each head and on average."""
    require_suffix("--output", output, ".png")
    model, waveform, clip = load_clip(audio, start, seconds, weights, device)

    import numpy as np

    from ..plots import Panel, draw
    from ..visualize.clip import attention_map

    heads = attention_map(model, clip, block, queries)  # (h, rows, columns)
    rate, frames = model.sample_rate, model.config.num_frames(len(waveform))
    top = max(1.0, float(np.quantile(heads.numpy(), 0.99)))
    panels = [
        Panel("input", clip, float(clip[:, :frames].min()), float(clip[:, :frames].max())),
        Panel("attention, mean of the heads (1 is an even share)", heads.mean(0), 0, top),
    ]
    panels += [Panel(f"head {i}", head, 0, top) for i, head in enumerate(heads)]
    draw(output, [[panel] for panel in panels], model.config.n_mels, frames, clip.shape[1], rate)
    say(f"{len(waveform) / rate:.2f} s of {audio} -> {output}")
