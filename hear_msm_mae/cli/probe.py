"""hear-msm-mae probe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    EXIT_SOME_FAILED,
    Device,
    Overwrite,
    Weights,
    Workers,
    complain,
    continuable,
    say,
    starting,
)

if TYPE_CHECKING:
    from ..answers.evaluate import ProbeResult

LabelsArgument = Annotated[
    Path,
    typer.Argument(
        help="A folder with one sub-folder per label, or a .csv/.parquet list with the columns "
        "path and label (or labels, separated by semicolons), and optionally start, end, group, "
        "split.",
        metavar="LABELS",
    ),
]


def probe(
    labels: LabelsArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for classifier, page and embeddings.")
    ] = Path("probe"),
    weights: Weights = "",
    seed: Annotated[int, typer.Option(help="Random seed of the folds.")] = 0,
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a linear classifier on embeddings of labelled recordings, and measure its quality.

    Scores come from cross-validation; recordings of one group (or file) are never in both training
    and test. OUT gets head.safetensors for predict, labels.json, and probe.html with scores,
    confidence intervals, confusions, a learning curve, and players for the mistakes. A second run
    embeds only new recordings.

    Exit status 3: some files could not be read. The others were used.
    """
    with starting():
        from ..answers.probe import PAGE
        from ..answers.probe import probe as run
    with continuable():
        result = run(
            labels, out, weights, device=device, seed=seed, workers=workers, overwrite=overwrite
        )
    tell(result, out / PAGE)


def tell(result: ProbeResult, page: Path) -> None:
    """Print failures, warnings and scores; exit with EXIT_SOME_FAILED if there are failures."""
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
