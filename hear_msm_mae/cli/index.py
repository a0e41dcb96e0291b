"""hear-msm-mae index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, Overlap, Overwrite, Weights, Workers
from .embed import embed


def index(
    sources: Annotated[
        list[str],
        typer.Argument(help="Audio files, folders, globs, URLs, or lists.", metavar="SRC..."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .parquet or .npz.")
    ],
    segment: Annotated[float, typer.Option(help="Length of the windows in seconds.")] = 2.0,
    overlap: Overlap = 1.0,
    whole: Annotated[
        bool, typer.Option("--whole", help="One embedding per recording, without windows.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="Number format of the output: float32 or float16.")
    ] = "float16",
    weights: Weights = "",
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Embed recordings for search: windows of 2 s, one every second, in half precision.

    The index is an output of embed. Search reads .npz faster; other programs read .parquet.
    Repeat the command to add new files of SRC.

    Exit status 3: some files could not be read. INDEX.errors.csv lists them.
    """
    if output.suffix.lower() not in (".parquet", ".npz"):
        raise ValueError(f"--output must end in .parquet or .npz, got {str(output)!r}")
    embed(
        sources,
        str(output),
        segment=None if whole else segment,
        overlap=0.0 if whole else overlap,
        dtype=dtype,
        weights=weights,
        device=device,
        workers=workers,
        overwrite=overwrite,
    )
