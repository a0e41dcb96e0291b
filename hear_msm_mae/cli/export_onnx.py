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
            help="File, folder or hf://user/repo to read, by default the bundled weights; file to "
            "write.",
            show_default=False,
        ),
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Store matrices in 8 bits: smaller, faster, less exact.")
    ] = False,
    layer: Annotated[
        int | None,
        typer.Option(help="Block that is read.", show_default="what the weights say"),
    ] = None,
    log_mel: Annotated[
        Path | None,
        typer.Option(help="Also write the front end, from waveform to log-mel, .onnx."),
    ] = None,
) -> None:
    """Write a model for ONNX Runtime, with or without this package."""
    if len(files) > 2:
        raise ValueError(f"give [WEIGHTS] OUT.onnx, got {len(files)} names")
    *weights, output = files
    # The exporter and the quantiser report hundreds of their steps at the level of info.
    logging.getLogger().setLevel(logging.WARNING)
    with starting():
        from ..onnx_export import export_onnx as run

        model = load(weights[0] if weights else "", layer=layer)
    run(model, output, int8=int8, log_mel=log_mel)
    for file in (Path(output), log_mel):
        if file is not None:
            say(f"{model.config.name} -> {file} ({file.stat().st_size / 1e6:.1f} MB)")
