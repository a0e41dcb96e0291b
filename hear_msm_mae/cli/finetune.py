"""hear-msm-mae finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, Overwrite, Weights, Workers, continuable, say, starting
from .probe import LabelsArgument, tell


def finetune(
    labels: LabelsArgument,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the model, the classifier and the page."),
    ] = Path("finetuned"),
    blocks: Annotated[
        int | None,
        typer.Option(help="Number of last blocks that are trained.", show_default="all"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs.")] = 30,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without improvement.")
    ] = 8,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the classifier.")] = 3e-4,
    layer_decay: Annotated[
        float, typer.Option(help="Learning rate of a block relative to the block above it.")
    ] = 0.75,
    mixup: Annotated[
        float, typer.Option(help="Mixup: parameter of the Beta distribution; 0 turns it off.")
    ] = 0.2,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 32,
    seconds: Annotated[float, typer.Option(help="Maximum length of the crops.")] = 5.0,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = 0.05,
    precision: Annotated[
        str, typer.Option(help="bf16, fp32, or auto (the faster one on this device).")
    ] = "auto",
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints; 0 writes one after each step.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Random seed of the splits, crops and mixup.")] = 0,
    weights: Weights = "",
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the encoder together with a classifier, and compare the result with probe.

    The recordings are split into training, validation and test by group, by file, or by the
    column split. OUT can be passed to --weights of every command and, as HEAD, to predict.
    finetune.html shows the test scores of the model and of a probe. Repeat the command to
    continue an interrupted run.

    Exit status 3: some files could not be read. The others were used.
    """
    with starting():
        from ..tuning.finetune import finetune as run
        from ..tuning.settings import PAGE
    with continuable():
        result = run(
            labels,
            out,
            weights,
            device=device,
            workers=workers,
            overwrite=overwrite,
            blocks=blocks,
            epochs=epochs,
            patience=patience,
            lr=lr,
            layer_decay=layer_decay,
            mixup=mixup,
            batch=batch,
            seconds=seconds,
            weight_decay=weight_decay,
            precision=precision,
            checkpoint_minutes=checkpoint_minutes,
            seed=seed,
        )
    say(result.comparison)
    tell(result, out / PAGE)
