"""Export the weights of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..checkpoints.native import Checkpoint, save_checkpoint
from . import snapshots


def export(
    run_dir: str | Path,
    out_path: str | Path,
    encoder_only: bool = False,
    half: bool = False,
    layer: int | None = None,
    embedding_scale: float = 1.0,
    scene_pooling: str = "mean+std",
) -> Path:
    """Write the weights of a run's newest checkpoint as a file that `load_model` takes.

    The same run gives the same bytes. A run with objective=latents and without `pixel_weight` has
    no decoder for reconstructions, so only its encoder is exported.

    Args:
        run_dir: folder of the run.
        out_path: file to write, `.safetensors`.
        encoder_only: leave out the decoder (reconstructions need it, embeddings do not).
        half: store float16.
        layer: block that `load_model` reads by default, see `ModelConfig.layer`.
        embedding_scale: factor of the embeddings, see `ModelConfig.embedding_scale`.
        scene_pooling: default pooling of scene embeddings, "mean" or "mean+std".

    Raises:
        FileNotFoundError: the folder has no checkpoint.
        ValueError: no checkpoint can be read, or an argument is wrong.
    """
    out_path = Path(out_path)
    if out_path.suffix != ".safetensors":
        raise ValueError(f"out_path must end in .safetensors, got {str(out_path)!r}")
    run = snapshots.load_latest(run_dir)
    if run is None:
        raise FileNotFoundError(f"no checkpoints of a run in {run_dir}")
    config = run.settings.model_config(*run.norm)
    config = dataclasses.replace(
        config, layer=layer, embedding_scale=embedding_scale, scene_pooling=scene_pooling
    )
    encoder_only |= run.settings.objective == "latents" and not run.settings.pixel_weight
    parts = ("encoder.",) if encoder_only else ("encoder.", "decoder.")
    tensors = {name: x for name, x in run.model.items() if name.startswith(parts)}
    save_checkpoint(out_path, Checkpoint(config, tensors), half=half)
    return out_path
