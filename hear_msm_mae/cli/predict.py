"""hear-msm-mae predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    Device,
    MadeWith,
    complain,
    require_suffix,
    say,
    starting,
)


def predict(
    head: Annotated[
        Path,
        typer.Argument(
            help="Folder of probe or finetune, or its head.safetensors.", metavar="HEAD"
        ),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            help="As for embed: files, folders, globs, URLs, lists; or one Parquet output of "
            "embed, which is not embedded again.",
            metavar="SRC...",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table of the labels: .csv or .parquet.")
    ],
    segment: Annotated[
        float | None, typer.Option(help="Label each window of so many seconds.")
    ] = None,
    overlap: Annotated[float, typer.Option(help="Seconds that neighbouring windows share.")] = 0.0,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Label each timestamp, usually every 40 ms.")
    ] = False,
    events: Annotated[
        Path | None, typer.Option(help="Also write stretches with one label, .csv.")
    ] = None,
    audacity: Annotated[
        Path | None, typer.Option(help="Folder for their label tracks for Audacity.")
    ] = None,
    raven: Annotated[
        Path | None, typer.Option(help="Folder for their selection tables for Raven.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Probability from which on a label is an event.")
    ] = 0.5,
    gap: Annotated[float, typer.Option(help="Events so many seconds apart are joined.")] = 0.0,
    shortest: Annotated[float, typer.Option(help="Shorter events are dropped, seconds.")] = 0.0,
    channel: Annotated[
        str, typer.Option(help="mix (the mean), left, right, a number from 0 on, or each.")
    ] = "mix",
    weights: MadeWith = "",
    device: Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Threads that read files; one per core, at most 16.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start from scratch whatever the output holds.")
    ] = False,
) -> None:
    """Label recordings with a classifier that probe or finetune has made.

    OUT has a row per recording, window or timestamp: path, start, end, label, probability, and one
    column per label. Memory does not grow with the length of recordings. Weights and options are
    those that the classifier learnt on. Repeat the command to continue a run that was interrupted,
    or to add what is new in SRC.

    Exit status 3: some files could not be read; they are in OUT.rows.parquet.errors.csv.
    """
    if events is not None:
        require_suffix("--events", events, ".csv")
    with starting():
        from ..answers.events import Event, check_events, csv_lines
        from ..answers.predict import predict as run
        from ..answers.predict import write_label_files
        from ..files import replacing

        check_events(threshold, gap, shortest)  # before hours are spent
    try:
        found = run(
            head,
            sources,
            output,
            weights,
            segment=segment,
            overlap=overlap,
            timestamps=timestamps,
            channel=channel,
            device=device,
            workers=workers,
            overwrite=overwrite,
        )
    except KeyboardInterrupt:
        complain("interrupted; repeat the command to continue")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    say(f"{found.table.total_rows} rows of {len(found.table.recordings)} recordings -> {output}")
    if events or audacity or raven:
        stretches = list(found.events(threshold, gap, shortest))
        if events:
            with replacing(events) as temporary:
                rows = [event._asdict() for event in stretches]
                temporary.write_text(csv_lines(rows, Event._fields), "utf-8")
            say(f"{len(stretches)} events -> {events}")
        for folder, kind in ((audacity, "audacity"), (raven, "raven")):
            if folder:
                say(f"{write_label_files(found, stretches, folder, kind)} files -> {folder}")
    if found.summary is not None and found.summary.failures:
        for failure in found.summary.failures:
            complain(f"could not read {failure.path}: {failure.reason}")
        raise typer.Exit(EXIT_SOME_FAILED)
