"""hear-msm-mae embed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    Device,
    Weights,
    complain,
    load,
    say,
    starting,
)

if TYPE_CHECKING:
    from ..embed.run import Summary
    from ..embed.sources import Failure

RAY_AUTO = "auto"
_SHOWN_FAILURES = 20


def embed(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Audio files, folders, quoted globs, URLs, or .csv/.parquet lists with a column "
            "path and optional start and end in seconds.",
            metavar="SRC...",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="What to write: .parquet, .npz, .h5, .csv, .duckdb, or a folder of .npy files.",
        ),
    ],
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Embeddings over time, not one per clip.")
    ] = False,
    segment: Annotated[
        float | None, typer.Option(help="One clip per window of so many seconds.")
    ] = None,
    overlap: Annotated[float, typer.Option(help="Seconds that neighbouring windows share.")] = 0.0,
    weights: Weights = "",
    hop_ms: Annotated[
        int | None, typer.Option(help="Distance of timestamps in ms; 40 by default.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the output: float32 or float16.")] = "float32",
    layer: Annotated[
        str | None,
        typer.Option(help="Block whose output is read: last, N, or N,M,... for several."),
    ] = None,
    scene_pooling: Annotated[
        str | None,
        typer.Option(help="Over time: mean, or mean+std for twice as many values."),
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option(help="Of the log-mel spectrogram: stored, batch (each clip), or MEAN,STD."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Of the encoder: float32, bfloat16, or auto (what the device is made for)."
        ),
    ] = "float32",
    mode: Annotated[str, typer.Option(help="default or paper.")] = "default",
    device: Device = "cpu",
    channel: Annotated[
        str,
        typer.Option(help="mix (the mean), left, right, a number from 0 on, or each."),
    ] = "mix",
    workers: Annotated[
        int | None, typer.Option(help="Threads that read files; one per core, at most 16.")
    ] = None,
    flush_minutes: Annotated[
        float | None,
        typer.Option(help="Bring OUT up to date so often.", show_default="at the end"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start from scratch whatever the output holds.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Name the files that a folder search leaves out.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Work on a Ray cluster.")] = False,
    ray_address: Annotated[
        str,
        typer.Option(
            help="Cluster to use with --ray, such as HOST:6379 or ray://HOST:10001; auto is the "
            "one that is running, else this machine.",
        ),
    ] = RAY_AUTO,
) -> None:
    """Embed recordings of any number, length, format and sample rate into a table.

    Parquet has a row per embedding: path, start, end, timestamp_ms (with --timestamps) and
    embedding. NPZ and HDF5 hold paths and seconds (one per clip), embeddings, and with
    --timestamps also timestamps in ms and clip, the index into paths. A folder gets one .npy file
    per recording.

    Repeat the command to continue a run that was interrupted, or to add what is new in SRC.

    Exit status 3: some files could not be read; they are in OUT.errors.csv, the others in OUT.
    """
    if ray_address != RAY_AUTO and not ray:
        raise ValueError("--ray-address is the address of the cluster for --ray; give both")
    options = {
        "timestamp_hop_ms": hop_ms,
        "normalization": _normalization(normalization),
        "precision": precision,
        "layer": _layer(layer),
        "scene_pooling": scene_pooling,
        "mode": mode,
    }
    with starting():
        from ..checkpoints.native import BUNDLED_WEIGHTS
        from ..embed.run import embed_to
        from ..embed.settings import settings_of

        # With --ray the device is that of the workers, which this machine need not have.
        model = load(weights, None if ray else device, **options)
        name = weights or BUNDLED_WEIGHTS
        settings = settings_of(model, name, timestamps, segment, overlap, dtype)
        spread = None
        if ray:
            from ..embed.ray import on_ray

            spread = on_ray(model, settings, ray_address, device)
    try:
        summary = embed_to(
            output,
            sources,
            model,
            settings,
            channel=channel,
            workers=workers,
            overwrite=overwrite,
            flush_minutes=flush_minutes,
            embed=spread,
        )
    except KeyboardInterrupt:
        how = " without --overwrite" if overwrite else ""
        complain(f"interrupted; repeat the command{how} to continue")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _report(output, summary, verbose)


def _layer(text: str | None) -> Any:
    """The option `layer` of load_model, which checks the values."""
    if text is None or text == "last":
        return text
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--layer must be last, N or N,M,..., got {text!r}") from None
    return layers[0] if len(layers) == 1 else layers


def _normalization(text: str | None) -> Any:
    """The option `normalization` of load_model, which checks the values."""
    if text is None or "," not in text:
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--normalization must be stored, batch or MEAN,STD, got {text!r}"
        ) from None


def _report(output: str, summary: Summary, verbose: bool) -> None:
    if summary.left_out:
        say(f"{len(summary.left_out)} other files in the folders were left out")
        for path in summary.left_out if verbose else []:
            say(f"left out: {path}")
    for failure in summary.failures[:_SHOWN_FAILURES]:
        complain(_line(failure))
    if summary.failures:
        more = len(summary.failures) - _SHOWN_FAILURES
        rest = f"{more} more and these are" if more > 0 else "listed"
        complain(f"{rest} in {summary.failures_file}")
    where = output if summary.done else "nothing was written"
    earlier = f", {summary.earlier} of them done before" if summary.earlier else ""
    say(f"{summary.done} of {summary.files} files -> {where}{earlier}")
    if summary.seconds:
        say(f"{summary.seconds / 3600:.2f} hours of audio, {summary.speed:.0f} x real time")
    if summary.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _line(failure: Failure) -> str:
    reason = failure.reason.splitlines()[0] if failure.reason else "unknown"
    return f"could not read {failure.path}: {reason}"
