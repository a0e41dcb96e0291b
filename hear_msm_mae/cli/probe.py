"""hear-msm-mae probe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    Device,
    Weights,
    complain,
    say,
    starting,
)

if TYPE_CHECKING:
    from ..answers.results import ProbeResult

LabelsArgument = Annotated[
    Path,
    typer.Argument(
        help="A folder with one sub-folder per label, or a .csv/.parquet list with columns "
        "path, label (or labels, between semicolons), and optional start, end, group, split.",
        metavar="LABELS",
    ),
]


def probe(
    labels: LabelsArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the classifier, the page, embeddings.")
    ] = Path("probe"),
    weights: Weights = "",
    seed: Annotated[int, typer.Option(help="Of the division into folds.")] = 0,
    device: Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Threads that read files; one per core, at most 16.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Embed again, whatever the folder holds.")
    ] = False,
) -> None:
    """Learn to label recordings, and measure how well it works.

    Scores are of recordings that were not learnt from; recordings of one group (or file) are never
    on both sides. OUT gets head.safetensors for predict, labels.json, and probe.html: scores with
    confidence intervals, confusions, a learning curve, and players for the mistakes. A second run
    embeds only what is new.

    Exit status 3: some files could not be read; the others were used.
    """
    with starting():
        from ..answers.probe import PAGE
        from ..answers.probe import probe as run
    with continuable():
        result = run(
            labels, out, weights, device=device, seed=seed, workers=workers, overwrite=overwrite
        )
    tell(result, out / PAGE)


@contextmanager
def continuable() -> Iterator[None]:
    """Ctrl-C in the block ends the command, which says that it can be continued."""
    try:
        yield
    except KeyboardInterrupt:
        complain("interrupted; repeat the command to continue")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def tell(result: ProbeResult, page: Path) -> None:
    """Print scores, warnings and failures; the exit status says whether there were any."""
    for failure in result.failures:
        complain(f"could not read {failure.path}: {failure.reason}")
    for warning in result.warnings:
        complain(f"warning: {warning}")
    for method, scores in result.scores.items():
        shown = ", ".join(f"{s.name} {s.value:.3f} ({s.low:.3f}-{s.high:.3f})" for s in scores)
        say(f"{method}: {shown}")
    say(f"{result.recordings} recordings, {len(result.head.labels)} labels -> {page}")
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
