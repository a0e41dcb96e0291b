"""Options and functions that the commands share.

Command modules import heavy packages inside functions, so that `hear-msm-mae --help` is fast.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import for_terminal

if TYPE_CHECKING:
    from ..model import HearModel

EXIT_BAD_INPUT = 2  # an option or input was wrong, and nothing was written
EXIT_SOME_FAILED = 3  # some files could not be read, and the others were processed
EXIT_INTERRUPTED = 130  # shells report this status for a program that Ctrl-C ended

Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        help="Weights: a file, a folder or hf://user/repo.",
        show_default="bundled weights",
    ),
]
MadeWith = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        help="The same weights, if they were moved or renamed.",
        show_default="the recorded path",
    ),
]
Device = Annotated[str, typer.Option(help="Device that computes: cpu, cuda, ...")]
Workers = Annotated[
    int | None,
    typer.Option(help="Threads that decode files.", show_default="one per core, at most 16"),
]
Overlap = Annotated[float, typer.Option(help="Seconds that neighbouring windows share.")]
Channel = Annotated[
    str, typer.Option(help="mix (the mean), left, right, a number from 0, or each (one by one).")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace earlier results instead of adding to them.")
]


def say(line: str) -> None:
    """Print one line to standard output; control characters are escaped."""
    print(for_terminal(line))


def complain(line: str) -> None:
    """Print one line to standard error; control characters are escaped."""
    print(for_terminal(line), file=sys.stderr)


@contextmanager
def starting() -> Iterator[None]:
    """End the process at once on Ctrl-C in the block, with EXIT_INTERRUPTED.

    The block imports packages and loads a model, before anything is written. KeyboardInterrupt
    could be raised inside C++ code of torch, which would swallow it or raise another error.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def continuable(how: str = "") -> Iterator[None]:
    """End the command on Ctrl-C in the block, and say that the same command continues it.

    Args:
        how: addition to the message, such as " without --overwrite".
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(f"interrupted; repeat the command{how} to continue")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _end(*_: object) -> None:
    os.write(2, b"interrupted\n")  # sys.stderr may be in the middle of a write
    os._exit(EXIT_INTERRUPTED)


def load(weights: str, device: str | None = None, **options: Any) -> HearModel:
    """Load the model of the options `--weights` and `--device`; see `load_model`.

    Call it within `starting`.
    """
    from ..api import load_model

    return load_model(weights, device=device, **options)


def require_suffix(option: str, path: Path, *suffixes: str) -> None:
    """Raise ValueError if a file name has another ending."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}, got {str(path)!r}")


def report_failures(failures: Iterable[tuple[str, str]]) -> None:
    """Print path and reason of each failure; exit with EXIT_SOME_FAILED if there are any."""
    failed = False
    for path, reason in failures:
        complain(f"could not read {path}: {reason}")
        failed = True
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
