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
    from ..embed.inputs import Failure
    from ..embed.run import Summary

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
            "--output", "-o", help="What to write: .parquet, .npz, .h5, or a folder of .npy files."
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
    precision: Annotated[
        str, typer.Option(help="Of the encoder: float32 or bfloat16.")
    ] = "float32",
    mode: Annotated[str, typer.Option(help="default or paper.")] = "default",
    device: Device = "cpu",
    batch_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds of audio encoded between two writes; chosen by the device."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that read files; one per core, at most 8.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start from scratch whatever the output holds.")
    ] = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Work on a Ray cluster. OUT is then a Parquet file, or a folder or URL of Parquet "
            "files.",
        ),
    ] = False,
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

    Repeat the command to go on with a run that was interrupted, or to add what is new in SRC.

    Exit status 3: some files could not be read; they are in OUT.errors.csv, the others in OUT.
    """
    if ray_address != RAY_AUTO and not ray:
        raise ValueError("--ray-address is the address of the cluster for --ray; give both")
    options: dict[str, Any] = {"precision": precision, "mode": mode}
    if hop_ms is not None:
        options["timestamp_hop_ms"] = hop_ms
    with starting():
        from ..checkpoints.native import BUNDLED_WEIGHTS
        from ..embed.cluster import embed_on_ray
        from ..embed.run import embed_to
        from ..embed.settings import settings_of

        # With --ray the device is that of the workers, which this machine need not have.
        model = load(weights, None if ray else device, **options)
        name = weights or BUNDLED_WEIGHTS
        settings = settings_of(model, name, timestamps, segment, overlap, dtype)
    try:
        if ray:
            summary = embed_on_ray(
                output, sources, model, settings, ray_address, batch_seconds, device, overwrite
            )
        else:
            summary = embed_to(output, sources, model, settings, batch_seconds, workers, overwrite)
    except KeyboardInterrupt:
        how = " without --overwrite" if overwrite else ""
        complain(f"interrupted; repeat the command{how} to go on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _report(output, summary)


def _report(output: str, summary: Summary) -> None:
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
