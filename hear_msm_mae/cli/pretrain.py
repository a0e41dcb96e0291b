"""hear-msm-mae pretrain."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from ..extras import need
from .common import complain, say, starting


def _show_help(context: typer.Context, wanted: bool) -> None:
    """Print the help of the command and all settings."""
    if not wanted:
        return
    _need()
    from ..pretrain.parsing import help_text, recipe_names

    text = f"{context.get_help()}\n\nRecipes: {', '.join(recipe_names())}\n\n"
    text += f"Settings, given as key=value after the recipe:\n\n{help_text()}"
    for line in text.splitlines():
        say(line)
    raise typer.Exit


def pretrain(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a bundled recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace those of the recipe.", metavar="[KEY=VALUE]..."),
    ] = None,
    help_: Annotated[
        bool,
        typer.Option(
            "--help", "-h", is_eager=True, callback=_show_help, help="Show this and all settings."
        ),
    ] = False,
) -> None:
    """Pretrain a masked autoencoder. Repeat the command to continue an interrupted run."""
    with starting():
        _need()
        from ..pretrain.parsing import load_recipe
        from ..pretrain.train import TrainingDiverged
        from ..pretrain.train import pretrain as run

    try:
        outcome = run(load_recipe(recipe, overrides or []))
    except TrainingDiverged as error:
        complain(f"error: {error}")
        raise typer.Exit(1) from None
    say(str(outcome))
    if outcome.signal is not None:  # the status of a process that the signal ended
        raise typer.Exit(128 + signal.Signals(outcome.signal))


def _need() -> None:
    for package in ("yaml", "jsonargparse", "docstring_parser", "lightning.fabric", "tensorboard"):
        need(package, "pretrain", "training runs")
