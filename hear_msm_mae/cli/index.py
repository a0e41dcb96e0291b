"""hear-msm-mae index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, Weights
from .embed import embed


def index(
    sources: Annotated[
        list[str],
        typer.Argument(help="As for embed: files, folders, globs, URLs, lists.", metavar="SRC..."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="What to write: .parquet, or .npz (see below).")
    ],
    segment: Annotated[float, typer.Option(help="Length of the windows in seconds.")] = 2.0,
    overlap: Annotated[float, typer.Option(help="Seconds that neighbouring windows share.")] = 1.0,
    whole: Annotated[
        bool, typer.Option("--whole", help="One embedding per recording, without windows.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Of the output: float32 or float16.")] = "float16",
    weights: Weights = "",
    device: Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Threads that read files; one per core, at most 16.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start from scratch whatever the output holds.")
    ] = False,
) -> None:
    """Embed recordings for search: windows of 2 s, one every second, in half precision.

    The index is an ordinary output of embed. Repeat the command to add what is new in SRC. Search
    reads .npz faster, other programs read .parquet.

    Exit status 3: some files could not be read; they are in INDEX.errors.csv.
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
