"""What the commands share."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

EXIT_BAD_INPUT = 2  # nothing was done
EXIT_SOME_FAILED = 3  # some files could not be read; the others were done

Weights = Annotated[
    str,
    typer.Option("--weights", "-w", help="File, folder or hf://user/repo; the bundled weights."),
]


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
