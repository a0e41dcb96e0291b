"""Command line: hear-msm-mae embed | info | convert | validate (and see cli_pretrain)."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from . import __version__, cli_pretrain
from .api import get_scene_embeddings, get_timestamp_embeddings, load_model
from .audio import find_audio, read_audio
from .checkpoint import bundled_weights, replacing, save_checkpoint
from .config import SAMPLE_RATE
from .convert import load_any
from .embedder import HearModel
from .units import valid_hops_ms

EXIT_BAD_INPUT = 2  # nothing was done
EXIT_SOME_FAILED = 3  # some files could not be read; the others were done
VALIDATOR_INSTALL = (
    "pip install --no-deps --ignore-requires-python hearvalidator==2021.0.6 "
    "&& pip install tensorflow-cpu"
)

app = typer.Typer(
    help="Audio embeddings from a masked-spectrogram-modeling Vision Transformer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in cli_pretrain.COMMANDS:
    app.command()(_command)

Weights = Annotated[
    str, typer.Option("--weights", "-w", help="Weights file; the bundled weights by default.")
]


def main() -> None:
    """Entry point of the console script: errors about the input are one line, no trace."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def _version(value: bool) -> None:
    if value:
        print(f"hear_msm_mae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def embed(
    audio: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .npz.")],
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Embeddings over time, not one per file.")
    ] = False,
    weights: Weights = "",
    hop_ms: Annotated[
        int | None,
        typer.Option(help="Distance of timestamps in ms; 40 by default."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    mode: Annotated[str, typer.Option(help="default or paper.")] = "default",
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")] = "cpu",
) -> None:
    """Embed audio files of any format and sample rate into one .npz file.

    It holds `paths` and `seconds` (one per file), `embeddings`, and with --timestamps also
    `timestamps` in ms and `clip`, the index into `paths`, for each row of `embeddings`.

    Exit status 3: some files could not be read; they are named, the others are in the output.
    """
    if output.suffix != ".npz":
        raise ValueError(f"--output must end in .npz, got {str(output)!r}")
    files = find_audio(audio)
    if not files:
        raise ValueError(f"no audio files in {', '.join(map(str, audio))}")
    options: dict[str, Any] = {"precision": precision, "mode": mode}
    if hop_ms is not None:
        options["timestamp_hop_ms"] = hop_ms
    model = load_model(weights, **options).to(_device(device))
    columns, failed = _embed_files(files, model, timestamps)
    for path, reason in failed:
        print(f"could not read {path}: {reason}", file=sys.stderr)
    if not columns["paths"]:
        raise ValueError("none of the files could be read; nothing was written")
    with replacing(output) as temporary:
        np.savez(temporary, **_arrays(columns))
    print(f"{len(columns['paths'])} of {len(files)} files -> {output}")
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def info(weights: Annotated[str, typer.Argument(help="Weights file.")] = "") -> None:
    """Show what a weights file holds."""
    path = Path(weights) if weights else bundled_weights()
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
        "input": f"{config.n_mels} mel bins x {config.unit_frames} frames, {SAMPLE_RATE} Hz",
        "patch": f"{config.patch_mels} x {config.patch_frames} ({config.native_hop_ms} ms)",
        "encoder": f"{config.width}-d, {config.depth} blocks, {config.heads} heads, "
        f"{'CLS' if config.cls_token else 'no CLS'}, {count['encoder'] / 1e6:.1f} M parameters",
        "decoder": decoder,
        "statistics": f"mean {config.norm_mean:.4f}, std {config.norm_std:.4f}",
        "embedding size": config.frame_embedding_size,
        "timestamp hops": f"{', '.join(map(str, valid_hops_ms(config)))} ms",
    }
    for key, value in rows.items():
        print(f"{key:15s} {value}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint to read, e.g. .pth.")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    name: Annotated[
        str | None,
        typer.Option(help="Model name such as 80x208p16x16, where the tensors leave it open."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
) -> None:
    """Convert a PyTorch checkpoint of another MSM-MAE implementation, safely."""
    if output.suffix != ".safetensors":
        raise ValueError(f"the output must end in .safetensors, got {str(output)!r}")
    checkpoint = load_any(source, name)
    save_checkpoint(output, checkpoint, half=half)
    decoder = "with" if checkpoint.has_decoder else "without"
    print(f"{checkpoint.config.name} {decoder} decoder -> {output}")


@app.command()
def validate(weights: Weights = "") -> None:
    """Run hear-validator on this package."""
    if importlib.util.find_spec("hearvalidator") is None:
        raise ValueError(f"hear-validator is not installed; run: {VALIDATOR_INSTALL}")
    path = weights or str(bundled_weights())
    command = [sys.executable, "-m", "hearvalidator.validate", "hear_msm_mae", "--model", path]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} is not usable here: {error}") from error
    return device


def _embed_files(
    files: list[Path], model: HearModel, timestamps: bool
) -> tuple[dict[str, list[Any]], list[tuple[Path, str]]]:
    """Embed file after file; a file that cannot be read is recorded and skipped."""
    columns: dict[str, list[Any]] = {"paths": [], "seconds": [], "embeddings": []}
    if timestamps:
        columns |= {"timestamps": [], "clip": []}
    failed: list[tuple[Path, str]] = []
    for path in tqdm(files, unit="file", desc="embed", disable=None):
        try:
            waveform = read_audio(path)
        except (OSError, ValueError) as error:
            failed.append((path, str(error)))
            continue
        batch = waveform[None]  # (1, n)
        if timestamps:
            embeddings, times = get_timestamp_embeddings(batch, model)
            columns["timestamps"].append(times[0].cpu().numpy())
            columns["clip"].append(np.full(times.shape[1], len(columns["paths"])))
            columns["embeddings"].append(embeddings[0].cpu().numpy())
        else:
            columns["embeddings"].append(get_scene_embeddings(batch, model).cpu().numpy())
        columns["paths"].append(str(path))
        columns["seconds"].append(len(waveform) / SAMPLE_RATE)
    return columns, failed


def _arrays(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """One array per column; rows of all files joined."""
    per_file = ("paths", "seconds")
    return {
        key: np.array(values) if key in per_file else np.concatenate(values)
        for key, values in columns.items()
    }
