"""Command line of embedding: hear-msm-mae embed."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..api import load_model
from ..checkpoints.native import BUNDLED_WEIGHTS
from ..embed.inputs import Failure
from ..embed.run import Summary, embed_to
from ..embed.settings import settings_of
from ..files import printable
from .common import EXIT_SOME_FAILED, Weights, usable_device

EXIT_INTERRUPTED = 130
_SHOWN_FAILURES = 20
_RAY_ADDRESS = re.compile(r"^(auto|local|ray://\S+|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+)$")


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
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")] = "cpu",
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
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Work on a Ray cluster; without an address on the one that is running, else on "
            "this machine. OUT is then a Parquet file, or a folder or URL of Parquet files.",
        ),
    ] = None,
) -> None:
    """Embed recordings of any number, length, format and sample rate into a table.

    Parquet has a row per embedding: path, start, end, timestamp_ms (with --timestamps) and
    embedding. NPZ and HDF5 hold paths and seconds (one per clip), embeddings, and with
    --timestamps also timestamps in ms and clip, the index into paths. A folder gets one .npy file
    per recording.

    Repeat the command to go on with a run that was interrupted, or to add what is new in SRC.

    Exit status 3: some files could not be read; they are in OUT.errors.csv, the others in OUT.
    """
    options: dict[str, Any] = {"precision": precision, "mode": mode}
    if hop_ms is not None:
        options["timestamp_hop_ms"] = hop_ms
    model = load_model(weights, **options)
    if ray is None:  # the device of the workers is not ours to judge
        model = model.to(usable_device(device))
    name = weights or BUNDLED_WEIGHTS
    settings = settings_of(model, name, timestamps, segment, overlap, dtype)
    try:
        if ray is None:
            summary = embed_to(output, sources, model, settings, batch_seconds, workers, overwrite)
        else:
            from ..embed.cluster import embed_on_ray

            summary = embed_on_ray(
                output, sources, model, settings, ray, batch_seconds, device, overwrite
            )
    except KeyboardInterrupt:
        how = " without --overwrite" if overwrite else ""
        print(f"interrupted; repeat the command{how} to go on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _report(output, summary)


def _report(output: str, summary: Summary) -> None:
    for failure in summary.failures[:_SHOWN_FAILURES]:
        print(_line(failure), file=sys.stderr)
    if summary.failures:
        more = len(summary.failures) - _SHOWN_FAILURES
        rest = f"{more} more and these are" if more > 0 else "listed"
        print(f"{rest} in {printable(str(summary.failures_file))}", file=sys.stderr)
    where = printable(output) if summary.done else "nothing was written"
    earlier = f", {summary.earlier} of them done before" if summary.earlier else ""
    print(f"{summary.done} of {summary.files} files -> {where}{earlier}")
    if summary.seconds:
        print(f"{summary.seconds / 3600:.2f} hours of audio, {summary.speed:.0f} x real time")
    if summary.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _line(failure: Failure) -> str:
    reason = failure.reason.splitlines()[0] if failure.reason else "unknown"
    return f"could not read {printable(failure.path)}: {reason}"


def with_ray_address(arguments: Sequence[str]) -> list[str]:
    """Give a bare `--ray` its value, as options whose value may be left out are not known.

    >>> with_ray_address(["embed", "a.wav", "--ray", "-o", "x.parquet"])
    ['embed', 'a.wav', '--ray=auto', '-o', 'x.parquet']
    >>> with_ray_address(["embed", "--ray", "head:6379", "a.wav"])
    ['embed', '--ray=head:6379', 'a.wav']
    """
    found: list[str] = []
    rest = iter(range(len(arguments)))
    for i in rest:
        if arguments[i] == "--ray":
            after = arguments[i + 1] if i + 1 < len(arguments) else ""
            if _RAY_ADDRESS.match(after):
                next(rest)
            found.append(f"--ray={after if _RAY_ADDRESS.match(after) else 'auto'}")
        else:
            found.append(arguments[i])
    return found


COMMANDS = (embed,)
