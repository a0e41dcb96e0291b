"""hear-msm-mae export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..extras import need
from .common import say, starting


def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of the run.")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Leave out the decoder.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
    layer: Annotated[
        int | None,
        typer.Option(help="Default block of load_model.", show_default="the last"),
    ] = None,
    embedding_scale: Annotated[
        float, typer.Option(help="Factor of the embeddings of the default block.")
    ] = 1.0,
    scene_pooling: Annotated[
        str, typer.Option(help="Default pooling of scene embeddings: mean or mean+std.")
    ] = "mean+std",
) -> None:
    """Write the weights of a pretraining run as a file for load_model."""
    with starting():
        for package in ("yaml", "jsonargparse", "lightning.fabric", "tensorboard"):
            need(package, "pretrain", "training runs")
        from ..pretrain.export import export as run

    written = run(
        run_dir,
        output,
        encoder_only=encoder_only,
        half=half,
        layer=layer,
        embedding_scale=embedding_scale,
        scene_pooling=scene_pooling,
    )
    say(str(written))
