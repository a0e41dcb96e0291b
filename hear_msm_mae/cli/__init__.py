"""The command line `hear-msm-mae`. A module of this package has the commands of one topic."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from ..files import for_terminal
from . import embed, labels, pictures, prepare, pretrain, search, weights
from .common import EXIT_BAD_INPUT, EXIT_INTERRUPTED, complain, say

app = typer.Typer(
    help="Audio embeddings from a masked-spectrogram-modeling Vision Transformer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the console script. An error about the input is one line without a trace."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        app()
    except KeyboardInterrupt:  # before the command began
        complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except (ValueError, TypeError, OSError, ImportError) as error:
        name = error.name or "" if isinstance(error, ImportError) else ""
        if name.startswith("hear_msm_mae"):  # a bug, not a missing package
            raise
        complain(f"error: {error}")
        sys.exit(EXIT_BAD_INPUT)


class _OneLine(logging.Formatter):
    """Escapes messages, because the names of files in them may control the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return for_terminal(super().formatMessage(record))


def _command(work: Callable[..., None]) -> Callable[..., None]:
    """Make a command exit with EXIT_INTERRUPTED on Ctrl-C, in every version of typer."""

    @functools.wraps(work)
    def run(*arguments: object, **options: object) -> None:
        try:
            work(*arguments, **options)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return run


def _version(value: bool) -> None:
    if value:
        say(f"hear_msm_mae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for _work in (
    embed.embed,
    search.index,
    search.search,
    labels.probe,
    labels.predict,
    labels.finetune,
    weights.info,
    weights.convert,
    weights.validate,
    pictures.report,
    pictures.reconstruct,
    pictures.attention,
    prepare.prepare,
    pretrain.pretrain,
    weights.export,
    weights.export_onnx,
):
    app.command()(_command(_work))
