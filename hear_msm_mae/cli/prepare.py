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
        typer.Option(help="Threads that decode files.", show_default="one per core"),
    ] = None,
    n_mels: Annotated[int, typer.Option(help="Number of mel bins.")] = 80,
    sample_rate: Annotated[
        int, typer.Option(help="Sample rate of the corpus in Hz: 16000 or 32000.")
    ] = 16_000,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the new files, written into the manifest."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Device that computes the log-mel: cpu, cuda, ...")
    ] = "cpu",
) -> None:
    """Convert folders of audio to a corpus of log-mel frames for pretraining.

    Repeat the command to continue an interrupted run, to add new files, or to repair the corpus.
    """
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
