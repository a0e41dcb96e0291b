"""hear-msm-mae info, convert, export, export-onnx and validate: files of weights."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..extras import need
from .common import Weights, load, require_suffix, say, starting

Half = Annotated[bool, typer.Option("--half", help="Store float16.")]
INSTALL_VALIDATOR = (
    "pip install --no-deps --ignore-requires-python hearvalidator==2021.0.6 "
    "&& pip install tensorflow-cpu"
)


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
    half: Half = False,
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


def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of the run.")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Leave out the decoder.")
    ] = False,
    half: Half = False,
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
        for package in ("yaml", "jsonargparse"):
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


def validate(weights: Weights = "") -> None:
    """Run hear-validator on this package."""
    if importlib.util.find_spec("hearvalidator") is None:
        raise ValueError(f"hear-validator is not installed; run: {INSTALL_VALIDATOR}")
    with starting():
        from ..checkpoints.hub import find_weights

        path = str(find_weights(weights))
    command = [sys.executable, "-m", "hearvalidator.validate", "hear_msm_mae", "--model", path]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
