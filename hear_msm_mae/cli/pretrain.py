"""hear-msm-mae pretrain."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from ..extras import need
from .common import say, starting


def pretrain(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changed settings, key=value.", metavar="[KEY=VALUE]..."),
    ] = None,
) -> None:
    """Train a masked autoencoder; an interrupted run goes on when the command is repeated."""
    with starting():
        for package in ("yaml", "lightning.fabric", "tensorboard", "sklearn"):
            need(package, "pretrain", "training runs")
        from ..pretrain.settings import load_recipe
        from ..pretrain.train import pretrain as run

    outcome = run(load_recipe(recipe, overrides or []))
    say(f"step {outcome.step} of {outcome.total_steps}")
    if outcome.signal is not None:  # as if the signal had ended the process
        raise typer.Exit(128 + signal.Signals(outcome.signal))
