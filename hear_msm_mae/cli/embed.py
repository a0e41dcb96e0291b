"""hear-msm-mae embed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    EXIT_SOME_FAILED,
    Channel,
    Device,
    Overlap,
    Overwrite,
    Weights,
    Workers,
    complain,
    continuable,
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
            "path and optional columns start and end in seconds.",
            metavar="SRC...",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File to write (.parquet, .npz, .h5, .csv, .duckdb) or folder of .npy files.",
        ),
    ],
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Write embeddings over time, not one per clip.")
    ] = False,
    segment: Annotated[
        float | None,
        typer.Option(
            help="Length of windows in seconds; each window is a clip.", show_default="whole files"
        ),
    ] = None,
    overlap: Overlap = 0.0,
    weights: Weights = "",
    hop_ms: Annotated[
        int | None, typer.Option(help="Distance of the timestamps in ms.", show_default="40")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Number format of the output: float32 or float16.")
    ] = "float32",
    layer: Annotated[
        str | None,
        typer.Option(
            help="Encoder block whose output is the embedding: last, an index from 0, or several "
            "as N,M,... (concatenated).",
            show_default="stored in the weights",
        ),
    ] = None,
    scene_pooling: Annotated[
        str | None,
        typer.Option(
            help="Pooling over time: mean, or mean+std (twice as many values).",
            show_default="stored in the weights",
        ),
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="Statistics that normalise the log-mel spectrogram: stored in the weights, batch "
            "(of each clip), or MEAN,STD.",
            show_default="stored",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of the encoder: float32, bfloat16, or auto (bfloat16 if the device "
            "has fast bfloat16)."
        ),
    ] = "float32",
    mode: Annotated[
        str,
        typer.Option(help="default, or paper or m2d to repeat the runtime of MSM-MAE or M2D."),
    ] = "default",
    device: Device = "cpu",
    channel: Channel = "mix",
    workers: Workers = None,
    flush_minutes: Annotated[
        float | None,
        typer.Option(
            help="Write OUT every so many minutes during the run.", show_default="at the end"
        ),
    ] = None,
    overwrite: Overwrite = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="List the files in folders that are not audio.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Embed on a Ray cluster.")] = False,
    ray_address: Annotated[
        str,
        typer.Option(
            help="Address of the cluster for --ray, such as HOST:6379 or ray://HOST:10001. auto "
            "takes the running cluster, or starts one on this machine.",
        ),
    ] = RAY_AUTO,
) -> None:
    """Embed recordings of any number, length, format and sample rate into a table.

    A Parquet file has a row per embedding with the columns path, start, end, timestamp_ms (with
    --timestamps) and embedding. NPZ and HDF5 files have arrays: paths, start and seconds for each
    clip, embeddings, and with --timestamps also timestamps in ms and clip (the index of the clip)
    for each embedding. A folder gets one .npy file per recording.

    Repeat the command to continue an interrupted run, or (but for .csv) to add new files of SRC.

    Exit status 3: some files could not be read. OUT.errors.csv lists them; OUT has the others.
    """
    if ray_address != RAY_AUTO and not ray:
        raise ValueError("--ray-address has no effect without --ray; add --ray")
    options = {
        "timestamp_hop_ms": hop_ms,
        "normalization": _numbers(normalization, float),
        "precision": precision,
        "layer": _numbers(layer, int),
        "scene_pooling": scene_pooling,
        "mode": mode,
    }
    with starting():
        from ..checkpoints.native import BUNDLED_WEIGHTS
        from ..embed.run import embed_to
        from ..embed.settings import settings_of

        # With --ray, --device is the device of the workers. This machine may lack it.
        model = load(weights, None if ray else device, **options)
        name = weights or BUNDLED_WEIGHTS
        settings = settings_of(model, name, timestamps, segment, overlap, dtype)
        spread = None
        if ray:
            from ..embed.ray import on_ray

            spread = on_ray(model, settings, ray_address, device)
    with continuable(" without --overwrite" if overwrite else ""):
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
    _report(output, summary, verbose)


def _numbers(text: str | None, kind: type) -> Any:
    """An option as an argument of `load_model`, which checks it: a number, several, or a word."""
    try:
        numbers = [kind(part) for part in (text or "").split(",")]
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


def _report(output: str, summary: Summary, verbose: bool) -> None:
    if summary.left_out:
        say(f"{len(summary.left_out)} files in the folders are not audio")
        for path in summary.left_out if verbose else []:
            say(f"not audio: {path}")
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
