"""Command line of the pretraining: hear-msm-mae prepare | pretrain | export.

The needs of `hear_msm_mae[pretrain]` are imported when a command runs, not before.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer


def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Folders of audio.")],
    dest: Annotated[Path, typer.Argument(help="Folder of the corpus to write.")],
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; one per core by default."),
    ] = None,
    n_mels: Annotated[int, typer.Option(help="Mel bins.")] = 80,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence tag that the manifest records for the new files."),
    ] = None,
) -> None:
    """Turn folders of audio into a corpus of log-mel shards; run again to continue."""
    from ..corpus.prepare import prepare as run

    report = run(sources, dest, workers=workers, n_mels=n_mels, licence=licence)
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.skipped.items())
    print(
        f"{report.files} files: {report.prepared} prepared, {report.unchanged} unchanged, "
        f"skipped: {skipped or 'none'}\n"
        f"{report.dest}: {report.clips} clips, {report.hours:.2f} hours, "
        f"mean {report.mean:.3f}, std {report.std:.3f} ({report.speed:.0f} x real time)"
    )


def pretrain(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changed settings, key=value.", metavar="[KEY=VALUE]..."),
    ] = None,
) -> None:
    """Train a masked autoencoder; an interrupted run goes on when the command is repeated."""
    from ..pretrain.settings import load_recipe
    from ..pretrain.train import pretrain as run

    outcome = run(load_recipe(recipe, overrides or []))
    print(f"step {outcome.step} of {outcome.total_steps}")
    if outcome.signal is not None:  # as if the signal had ended the process
        raise typer.Exit(128 + signal.Signals(outcome.signal))


def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of the run.")],
    output: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Leave out the decoder.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
    layer: Annotated[
        int | None,
        typer.Option(help="Block that load_model reads by default.", show_default="the last"),
    ] = None,
    embedding_scale: Annotated[
        float, typer.Option(help="Factor of the embeddings that load_model gives by default.")
    ] = 1.0,
) -> None:
    """Write the weights of a run as a file for load_model."""
    from ..pretrain.train import export as run

    written = run(
        run_dir,
        output,
        encoder_only=encoder_only,
        half=half,
        layer=layer,
        embedding_scale=embedding_scale,
    )
    print(written)


COMMANDS = (prepare, pretrain, export)
