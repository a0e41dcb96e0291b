"""hear-msm-mae predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    EXIT_SOME_FAILED,
    Channel,
    Device,
    MadeWith,
    Overlap,
    Overwrite,
    Workers,
    complain,
    continuable,
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
            help="Audio files, folders, globs, URLs or lists, or one Parquet output of embed, "
            "whose embeddings are used.",
            metavar="SRC...",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table of the labels: .csv or .parquet.")
    ],
    segment: Annotated[
        float | None,
        typer.Option(
            help="Length of windows in seconds; each gets a label.", show_default="whole files"
        ),
    ] = None,
    overlap: Overlap = 0.0,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Label each timestamp, usually every 40 ms.")
    ] = False,
    events: Annotated[
        Path | None, typer.Option(help="Also write events (start, end, label), .csv.")
    ] = None,
    audacity: Annotated[
        Path | None, typer.Option(help="Folder for the events as label tracks for Audacity.")
    ] = None,
    raven: Annotated[
        Path | None, typer.Option(help="Folder for the events as selection tables for Raven.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Minimum probability of a label in an event.")
    ] = 0.5,
    gap: Annotated[
        float, typer.Option(help="Join events of a label that are at most so many seconds apart.")
    ] = 0.0,
    shortest: Annotated[float, typer.Option(help="Drop events below so many seconds.")] = 0.0,
    channel: Channel = "mix",
    weights: MadeWith = "",
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Label recordings with a classifier of probe or finetune.

    OUT has a row per recording, window or timestamp with the columns path, start, end, label,
    probability, and one column per label. Weights and options are those of the classifier's
    training. Repeat the command to continue an interrupted run, or to add new files of SRC.

    Exit status 3: some files could not be read. OUT.rows.parquet.errors.csv lists them.
    """
    if events is not None:
        require_suffix("--events", events, ".csv")
    with starting():
        from ..answers.events import Event, check_events, csv_lines, write_label_files
        from ..answers.predict import predict as run
        from ..files import replacing

        check_events(threshold, gap, shortest)  # refuses wrong options before the long run
    with continuable():
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
                say(f"{write_label_files(found.table, stretches, folder, kind)} files -> {folder}")
    if found.summary is not None and found.summary.failures:
        for failure in found.summary.failures:
            complain(f"could not read {failure.path}: {failure.reason}")
        raise typer.Exit(EXIT_SOME_FAILED)
