"""hear-msm-mae probe, predict and finetune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    Channel,
    Device,
    MadeWith,
    Overlap,
    Overwrite,
    Weights,
    Workers,
    complain,
    continuable,
    report_failures,
    require_suffix,
    say,
    starting,
)

if TYPE_CHECKING:
    from ..answers.evaluate import ProbeResult

Labels = Annotated[
    Path,
    typer.Argument(
        help="A folder with one sub-folder per label, or a .csv/.parquet list with the columns "
        "path and label (or labels, separated by semicolons), and optionally start, end, group, "
        "split.",
        metavar="LABELS",
    ),
]


def probe(
    labels: Labels,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for classifier, page and embeddings.")
    ] = Path("probe"),
    weights: Weights = "",
    scene_pooling: Annotated[
        str | None,
        typer.Option(
            help="mean or mean+std of the embeddings over time.",
            show_default="that of the weights",
        ),
    ] = None,
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
    with continuable(" without --overwrite" if overwrite else ""):
        result = run(
            labels,
            out,
            weights,
            scene_pooling=scene_pooling,
            device=device,
            seed=seed,
            workers=workers,
            overwrite=overwrite,
        )
    _tell(result, out / PAGE)


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
        bool,
        typer.Option(
            "--timestamps",
            help="Label each timestamp, usually every 40 ms; HEAD of probe --scene-pooling mean.",
        ),
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
        from ..embed.run import is_source
        from ..files import printable, replacing

        # Wrong options are refused before the long run.
        check_events(threshold, gap, shortest)
        if events is not None and is_source(events, sources):
            raise ValueError(f"--events {printable(events)} is an input, too; choose another file")
    with continuable(" without --overwrite" if overwrite else ""):
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
                files = write_label_files(found.table, stretches, folder, kind)
                say(f"{files} files -> {folder}")
    if found.summary is not None:
        report_failures((x.path, x.reason) for x in found.summary.failures)


def finetune(
    labels: Labels,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the model, the classifier and the page."),
    ] = Path("finetuned"),
    blocks: Annotated[
        int | None,
        typer.Option(help="Number of last blocks that are trained.", show_default="all"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs.")] = 30,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without improvement.")
    ] = 8,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the classifier.")] = 3e-4,
    layer_decay: Annotated[
        float, typer.Option(help="Learning rate of a block relative to the block above it.")
    ] = 0.75,
    mixup: Annotated[
        float, typer.Option(help="Mixup: parameter of the Beta distribution; 0 turns it off.")
    ] = 0.2,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 32,
    seconds: Annotated[float, typer.Option(help="Maximum length of the crops.")] = 5.0,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = 0.05,
    precision: Annotated[
        str, typer.Option(help="bf16, fp32, or auto (the faster one on this device).")
    ] = "auto",
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints; 0 writes one after each step.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Random seed of the splits, crops and mixup.")] = 0,
    weights: Weights = "",
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the encoder together with a classifier, and compare the result with probe.

    The recordings are split into training, validation and test by group, by file, or by the
    column split. OUT can be passed to --weights of commands that embed and, as HEAD, to predict.
    finetune.html shows the test scores of the model and of a probe. Repeat the command to
    continue an interrupted run.

    Exit status 3: some files could not be read. The others were used.
    """
    with starting():
        from ..tuning.finetune import finetune as run
        from ..tuning.settings import PAGE
    with continuable(" without --overwrite" if overwrite else ""):
        result = run(
            labels,
            out,
            weights,
            device=device,
            workers=workers,
            overwrite=overwrite,
            blocks=blocks,
            epochs=epochs,
            patience=patience,
            lr=lr,
            layer_decay=layer_decay,
            mixup=mixup,
            batch=batch,
            seconds=seconds,
            weight_decay=weight_decay,
            precision=precision,
            checkpoint_minutes=checkpoint_minutes,
            seed=seed,
        )
    say(result.comparison)
    _tell(result, out / PAGE)


def _tell(result: ProbeResult, page: Path) -> None:
    """Print warnings, scores and failures."""
    for warning in result.warnings:
        complain(f"warning: {warning}")
    for method, scores in result.scores.items():
        shown = ", ".join(f"{s.name} {s.value:.3f} ({s.low:.3f}-{s.high:.3f})" for s in scores)
        say(f"{method}: {shown}")
    say(f"{result.recordings} recordings, {len(result.head.labels)} labels -> {page}")
    report_failures((x.path, x.reason) for x in result.failures)
