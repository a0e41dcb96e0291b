"""What the commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

EXIT_BAD_INPUT = 2  # nothing was done
EXIT_SOME_FAILED = 3  # some files could not be read; the others were done

Weights = Annotated[
    str,
    typer.Option("--weights", "-w", help="File, folder or hf://user/repo; the bundled weights."),
]

# TensorFlow crashes the process when it is loaded before Triton.
_RUN_MODULE = (
    "import contextlib, runpy, sys\n"
    "with contextlib.suppress(ImportError):\n"
    "    import triton\n"
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)\n"
)


def module_command(module: str, *arguments: str, python: str | Path = sys.executable) -> list[str]:
    """Command line that runs a module as `python -m` does, also one that imports TensorFlow."""
    return [str(python), "-c", _RUN_MODULE, module, *arguments]


def usable_device(name: str) -> torch.device:
    """The device of a `--device` option.

    Raises:
        ValueError: there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} is not usable here: {error}") from error
    return device
