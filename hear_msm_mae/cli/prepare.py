"""hear-msm-mae prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import say, starting


def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Folders of audio.")],
    dest: Annotated[Path, typer.Argument(help="Folder of the corpus to write.")],
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; one per core by default."),
    ] = None,
    n_mels: Annotated[int, typer.Option(help="Mel bins.")] = 80,
    sample_rate: Annotated[int, typer.Option(help="Of the audio in Hz, 16000 or 32000.")] = 16_000,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence tag that the manifest records for the new files."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to compute the log-mel: cpu, cuda, ...")
    ] = "cpu",
) -> None:
    """Turn folders of audio into a corpus of log-mel frames; run again to continue or repair."""
    with starting():
        from ..corpus.prepare import prepare as run

    report = run(
        sources,
        dest,
        workers=workers,
        n_mels=n_mels,
        sample_rate=sample_rate,
        licence=licence,
        device=device,
    )
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.skipped.items())
    say(
        f"{report.files} files: {report.prepared} prepared, {report.unchanged} unchanged, "
        f"skipped: {skipped or 'none'}"
    )
    say(
        f"{report.dest}: {report.clips} clips, {report.hours:.2f} hours, "
        f"mean {report.mean:.3f}, std {report.std:.3f} ({report.speed:.0f} x real time)"
    )
