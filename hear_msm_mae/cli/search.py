"""hear-msm-mae index and search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Device,
    MadeWith,
    Overlap,
    Overwrite,
    Weights,
    Workers,
    require_suffix,
    say,
    starting,
)
from .embed import embed

if TYPE_CHECKING:
    from ..answers.search import Hit, Pair


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
    require_suffix("--output", output, ".parquet", ".npz")
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


def search(
    index: Annotated[
        Path, typer.Argument(help="Output of index or embed that is searched.", metavar="INDEX")
    ],
    queries: Annotated[
        list[str] | None,
        typer.Argument(help="Recordings that hits should resemble.", metavar="[QUERY]..."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Hits for each query.")] = 10,
    start: Annotated[float, typer.Option(help="Start in the query in seconds.")] = 0.0,
    end: Annotated[
        float | None,
        typer.Option(help="End in the query in seconds.", show_default="end of the file"),
    ] = None,
    one_per_file: Annotated[
        bool, typer.Option("--one-per-file", help="Return only the best window of each file.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Search large indexes faster with FAISS; writes INDEX.faiss."
        ),
    ] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Find pairs of nearly equal files; no queries.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Minimum similarity of duplicates.", show_default="0.95"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write .csv, .json, or .html with players."),
    ] = None,
    weights: MadeWith = "",
    device: Device = "cpu",
) -> None:
    """Find recordings, or windows of them, that sound like a query.

    Similarity is the cosine of two embeddings after the mean of the index is subtracted: 1 means
    equal, 0 unrelated. The query is compared with every embedding of the index, except its own.
    It is embedded with the weights and options of the index.
    """
    if bool(queries) == duplicates:
        raise ValueError("pass either recordings as queries or --duplicates")
    if threshold is not None and not duplicates:
        raise ValueError("--threshold needs --duplicates; use --count to limit the hits of queries")
    if output is not None:
        require_suffix("--output", output, ".csv", ".json", ".html")
    found: Sequence[Hit | Pair]
    with starting():
        from ..answers import search as engine
        from ..answers.index import Index

        opened = Index(index)
    if duplicates:
        limit = engine.DUPLICATE if threshold is None else threshold
        found = pairs = engine.duplicates(opened, limit)
        title = f"{len(found)} pairs of files with a similarity of at least {limit:g}"
        for pair in pairs:
            say(f"{pair.similarity:.3f}  {_stretch(pair[:3])}  {_stretch(pair[3:6])}")
    else:
        found = hits = engine.search(
            opened,
            queries,
            weights,
            count=count,
            start=start,
            end=end,
            one_per_file=one_per_file,
            approximate=approximate,
            device=device,
        )
        title = f"{len(found)} hits in {opened.table.total_rows} embeddings"
        for hit in hits:
            if hit.rank == 1:
                say(hit.query)
            say(f"{hit.rank:4d}  {hit.similarity:.3f}  {_stretch(hit[2:5])}")
    say(title)
    if output is not None:
        _write(output, title, found)


def _stretch(part: Sequence[Any]) -> str:
    path, start, end = part
    return f"{path} {start:.2f}-{end:.2f} s"


def _write(output: Path, title: str, found: Sequence[Hit | Pair]) -> None:
    from ..answers.events import csv_lines
    from ..answers.page import search_page
    from ..files import replacing

    rows = [row._asdict() for row in found]
    if output.suffix.lower() == ".html":
        text = search_page(title, found)
    elif output.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1)
    else:
        text = csv_lines(rows, list(rows[0]) if rows else [])
    with replacing(output) as temporary:
        temporary.write_text(text, "utf-8")
