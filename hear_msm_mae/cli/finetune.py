"""hear-msm-mae finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, Weights, say, starting
from .probe import LabelsArgument, continuable, tell


def finetune(
    labels: LabelsArgument,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the model, the classifier and the page."),
    ] = Path("finetuned"),
    blocks: Annotated[
        int | None,
        typer.Option(help="How many of the last blocks learn.", show_default="all of them"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the recordings, at most.")] = 30,
    patience: Annotated[
        int, typer.Option(help="Epochs without improvement, after which the run ends.")
    ] = 8,
    lr: Annotated[float, typer.Option(help="Peak learning rate, that of the classifier.")] = 3e-4,
    layer_decay: Annotated[
        float, typer.Option(help="Factor of the learning rate from a block to the one below it.")
    ] = 0.75,
    mixup: Annotated[
        float, typer.Option(help="Mix pairs by shares from Beta(x, x); 0 is off.")
    ] = 0.2,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 32,
    seconds: Annotated[float, typer.Option(help="Length of the crops, at most.")] = 5.0,
    weight_decay: Annotated[float, typer.Option(help="AdamW: weight decay of matrices.")] = 0.05,
    precision: Annotated[
        str, typer.Option(help="bf16, fp32, or auto: the faster one here.")
    ] = "auto",
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints; 0: after each step.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Of the division, the crops and the mixing.")] = 0,
    weights: Weights = "",
    device: Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Threads that read files; one per core, at most 16.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start from scratch, whatever the folder holds.")
    ] = False,
) -> None:
    """Train the encoder together with a classifier, and compare with probe.

    The recordings are divided by group (or file, or the column split) into some to learn from, to
    stop by, and to test. OUT can be given to --weights of every command and, as HEAD, to predict;
    finetune.html shows the scores of the test, beside those of a probe. Repeat the command to
    continue a run that was interrupted.

    Exit status 3: some files could not be read; the others were used.
    """
    with starting():
        from ..tuning.finetune import PAGE
        from ..tuning.finetune import finetune as run
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
