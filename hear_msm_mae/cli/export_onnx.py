"""hear-msm-mae export-onnx."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from .common import load, say, starting


def export_onnx(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[WEIGHTS] OUT.onnx",
            help="Weights (a file, a folder or hf://user/repo; by default the bundled weights), "
            "and the file to write.",
            show_default=False,
        ),
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Store matrices in 8 bits: smaller, but less exact.")
    ] = False,
    layer: Annotated[
        int | None,
        typer.Option(help="Block whose output is the embedding.", show_default="of the weights"),
    ] = None,
    log_mel: Annotated[
        Path | None,
        typer.Option(help="Also write the front end (waveform to log-mel), .onnx."),
    ] = None,
) -> None:
    """Write the encoder as an ONNX file, for load_model or for ONNX Runtime alone."""
    if len(files) > 2:
        raise ValueError(f"give [WEIGHTS] OUT.onnx, got {len(files)} names")
    *weights, output = files
    # The exporter and the quantiser log hundreds of messages at the level INFO.
    logging.getLogger().setLevel(logging.WARNING)
    with starting():
        from ..onnx_export import export_onnx as run

        model = load(weights[0] if weights else "", layer=layer)
    run(model, output, int8=int8, log_mel=log_mel)
    for file in (Path(output), log_mel):
        if file is not None:
            say(f"{model.config.name} -> {file} ({file.stat().st_size / 1e6:.1f} MB)")
