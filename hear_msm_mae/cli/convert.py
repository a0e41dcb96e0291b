"""hear-msm-mae convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import require_suffix, say, starting


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint to read, e.g. .pth.")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    name: Annotated[
        str | None,
        typer.Option(help="Model name such as 80x208p16x16, if the tensors do not determine it."),
    ] = None,
    norm_pixels: Annotated[
        bool | None,
        typer.Option(
            help="Whether the decoder predicts normalised patches.",
            show_default="norm_pix_loss of the checkpoint",
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
) -> None:
    """Convert a PyTorch checkpoint of another MSM-MAE implementation, safely."""
    require_suffix("OUTPUT", output, ".safetensors")
    with starting():
        from ..checkpoints.foreign import load_any
        from ..checkpoints.native import save_checkpoint

        checkpoint = load_any(source, name, norm_pixels)
    save_checkpoint(output, checkpoint, half=half)
    decoder = "with" if checkpoint.has_decoder else "without"
    say(f"{checkpoint.config.name} {decoder} decoder -> {output}")
