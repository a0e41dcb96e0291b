"""hear-msm-mae report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    CLIP_SECONDS,
    EXIT_SOME_FAILED,
    Device,
    Seed,
    Weights,
    complain,
    load,
    say,
    starting,
)


def report(
    audio: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .html.")],
    weights: Weights = "",
    mask_ratio: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of masked patches; may be given several times.",
            show_default="0.5, 0.75, 0.9",
        ),
    ] = None,
    reconstructions: Annotated[
        bool, typer.Option(help="Show masked inputs and reconstructions; needs the decoder.")
    ] = True,
    layout: Annotated[
        str, typer.Option(help="Map of the clips: tsne, pca, or auto (by the number of clips).")
    ] = "auto",
    seconds: Annotated[
        float, typer.Option(help="Seconds of each file, from its start, that are used.")
    ] = CLIP_SECONDS,
    max_clips: Annotated[
        int, typer.Option(help="Maximum number of files; from more files, an even selection.")
    ] = 200,
    title: Annotated[
        str, typer.Option(help="Title of the page.", show_default="name of the folder")
    ] = "",
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Write an HTML page about a folder of recordings, with a map of the clips.

    Each clip has a player, its spectrogram, masked input and reconstruction, an attention map and
    its nearest neighbours. The page contains the sound as MP3 and needs no network.

    Exit status 3: some files could not be read. The page lists them.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output must end in .html, got {str(output)!r}")
    with starting():
        from ..audio import find_audio
        from ..visualize.report import Settings, write_report

        settings = Settings(
            mask_ratios=tuple(mask_ratio or (0.5, 0.75, 0.9)) if reconstructions else (),
            layout=layout,
            seconds=seconds,
            max_clips=max_clips,
            title=title,
            seed=seed,
        )
        if not find_audio(audio):  # an empty folder is refused before the model is loaded
            raise ValueError(f"no audio files in {', '.join(map(str, audio))}")
        model = load(weights, device)
    outcome = write_report(output, audio, model, settings, progress=_bar)
    for path, reason in outcome.failed:
        complain(f"could not read {path}: {reason}")
    if outcome.found > outcome.chosen:
        say(f"{outcome.chosen} of {outcome.found} files chosen evenly; see --max-clips")
    size = output.stat().st_size / 1e6
    say(f"{outcome.shown} of {outcome.chosen} files -> {output} ({size:.1f} MB)")
    if outcome.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _bar(files: Sequence[Path]) -> Iterable[Path]:
    from tqdm import tqdm

    return tqdm(files, unit="clip", desc="report", disable=None)
