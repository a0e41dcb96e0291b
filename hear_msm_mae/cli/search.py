"""hear-msm-mae search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Device, MadeWith, say, starting

if TYPE_CHECKING:
    from ..answers.search import Hit, Pair

_SUFFIXES = (".csv", ".json", ".html")


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
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"--output must end in one of {list(_SUFFIXES)}, got {str(output)!r}")
    found: Sequence[Hit] | Sequence[Pair]
    with starting():
        from ..answers import search as engine
        from ..answers.index import Index

        index_ = Index(index)
    if duplicates:
        limit = engine.DUPLICATE if threshold is None else threshold
        found = engine.duplicates(index_, limit)
        title = f"{len(found)} pairs of files with a similarity of at least {limit:g}"
        for pair in found:
            say(f"{pair.similarity:.3f}  {_stretch(pair[:3])}  {_stretch(pair[3:6])}")
    else:
        found = engine.search(
            index_,
            queries,
            weights,
            count=count,
            start=start,
            end=end,
            one_per_file=one_per_file,
            approximate=approximate,
            device=device,
        )
        title = f"{len(found)} hits in {index_.table.total_rows} embeddings"
        for hit in found:
            if hit.rank == 1:
                say(hit.query)
            say(f"{hit.rank:4d}  {hit.similarity:.3f}  {_stretch(hit[2:5])}")
    say(title)
    if output is not None:
        _write(output, title, found, start, end)


def _stretch(part: Sequence[Any]) -> str:
    path, start, end = part
    return f"{path} {start:.2f}-{end:.2f} s"


def _write(
    output: Path, title: str, found: Sequence[Hit | Pair], start: float, end: float | None
) -> None:
    from ..answers.events import csv_lines
    from ..answers.page import search_page
    from ..files import replacing

    rows = [row._asdict() for row in found]
    if output.suffix.lower() == ".html":
        text = search_page(title, found, start, end)
    elif output.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1)
    else:
        text = csv_lines(rows, list(rows[0]) if rows else [])
    with replacing(output) as temporary:
        temporary.write_text(text, "utf-8")
