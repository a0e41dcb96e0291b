"""Command line: hear-msm-mae info | convert | validate (and see the other cli_ modules)."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..checkpoints.foreign import load_any
from ..checkpoints.hub import find_weights
from ..checkpoints.native import save_checkpoint
from ..config import SAMPLE_RATE
from ..timeline import valid_hops_ms
from . import embed as cli_embed
from . import pretrain as cli_pretrain
from . import report as cli_visual
from .common import EXIT_BAD_INPUT, Weights, module_command

VALIDATOR_INSTALL = (
    "pip install --no-deps --ignore-requires-python hearvalidator==2021.0.6 "
    "&& pip install tensorflow-cpu"
)

# Extras of commands whose modules import what they need; the others say it themselves.
EXTRAS = dict.fromkeys(("prepare", "pretrain", "export"), "pretrain")

app = typer.Typer(
    help="Audio embeddings from a masked-spectrogram-modeling Vision Transformer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (*cli_embed.COMMANDS, *cli_pretrain.COMMANDS, *cli_visual.COMMANDS):
    app.command()(_command)


def main() -> None:
    """Entry point of the console script: errors about the input are one line, no trace."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        app(cli_embed.with_ray_address(sys.argv[1:]))
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except ImportError as error:
        if (error.name or "").startswith(__package__):  # a defect, not a missing package
            raise
        extra = EXTRAS.get(sys.argv[1], "")
        hint = f"; run: pip install 'hear_msm_mae[{extra}]'" if extra else ""
        print(f"error: {error}{hint}", file=sys.stderr)
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
def info(weights: Annotated[str, typer.Argument(help="Weights file.")] = "") -> None:
    """Show what a weights file holds."""
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
        "input": f"{config.n_mels} mel bins x {config.unit_frames} frames, {SAMPLE_RATE} Hz",
        "patch": f"{config.patch_mels} x {config.patch_frames} ({config.native_hop_ms} ms)",
        "encoder": f"{config.width}-d, {config.depth} blocks, {config.heads} heads, "
        f"{'CLS' if config.cls_token else 'no CLS'}, {count['encoder'] / 1e6:.1f} M parameters",
        "decoder": decoder,
        "layer": "last" if config.layer is None else f"{config.layer} of 0 to {config.depth - 1}",
        "statistics": f"mean {config.norm_mean:.4f}, std {config.norm_std:.4f}",
        "embedding size": config.frame_embedding_size,
        "embedding scale": f"{config.embedding_scale:g}",
        "timestamp hops": f"{', '.join(map(str, valid_hops_ms(config)))} ms",
    }
    for key, value in rows.items():
        print(f"{key:16s} {value}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint to read, e.g. .pth.")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    name: Annotated[
        str | None,
        typer.Option(help="Model name such as 80x208p16x16, where the tensors leave it open."),
    ] = None,
    norm_pixels: Annotated[
        bool | None,
        typer.Option(
            help="Whether the decoder predicts normalised patches; by default what the "
            "checkpoint says (norm_pix_loss in its args).",
            show_default=False,
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
) -> None:
    """Convert a PyTorch checkpoint of another MSM-MAE implementation, safely."""
    if output.suffix != ".safetensors":
        raise ValueError(f"the output must end in .safetensors, got {str(output)!r}")
    checkpoint = load_any(source, name, norm_pixels)
    save_checkpoint(output, checkpoint, half=half)
    decoder = "with" if checkpoint.has_decoder else "without"
    print(f"{checkpoint.config.name} {decoder} decoder -> {output}")


@app.command()
def validate(weights: Weights = "") -> None:
    """Run hear-validator on this package."""
    if importlib.util.find_spec("hearvalidator") is None:
        raise ValueError(f"hear-validator is not installed; run: {VALIDATOR_INSTALL}")
    path = str(find_weights(weights))
    command = module_command("hearvalidator.validate", "hear_msm_mae", "--model", path)
    raise typer.Exit(subprocess.run(command, check=False).returncode)
