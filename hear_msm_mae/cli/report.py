"""Command line of the pictures: hear-msm-mae report | reconstruct | attention.

The needs of `hear_msm_mae[visual]` are imported when a command runs, not before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from ..api import load_model
from ..audio import find_audio, read_audio
from ..config import SAMPLE_RATE, num_frames
from ..files import printable, replacing
from ..model import HearModel
from .common import EXIT_SOME_FAILED, Weights, usable_device

CLIP_SECONDS = 10.0

Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")]
Seconds = Annotated[float, typer.Option(help="Length of the stretch, at most.")]
Start = Annotated[float, typer.Option(help="Where in the file to begin, in seconds.")]
Picture = Annotated[Path, typer.Option("--output", "-o", help="File to write, .png.")]
Seed = Annotated[int, typer.Option(help="Decides which patches are hidden.")]


def report(
    audio: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .html.")],
    weights: Weights = "",
    mask_ratio: Annotated[
        list[float] | None,
        typer.Option(help="Share of hidden patches; may be given several times. [0.5 0.75 0.9]"),
    ] = None,
    reconstructions: Annotated[
        bool, typer.Option(help="Masked input and reconstructions, which need the decoder.")
    ] = True,
    layout: Annotated[
        str, typer.Option(help="Map of the clips: tsne, pca, or auto by their number.")
    ] = "auto",
    seconds: Annotated[
        float, typer.Option(help="Of each file, from its start: embedded, shown and played.")
    ] = CLIP_SECONDS,
    max_clips: Annotated[
        int, typer.Option(help="Of more files, so many at even distances are shown.")
    ] = 200,
    title: Annotated[
        str, typer.Option(help="Of the page; by default the name of the folder.")
    ] = "",
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Write one self-contained page about a folder of recordings: a map to click and listen.

    Each clip has a player, its spectrogram, masked input and reconstruction, an attention map and
    its nearest neighbours. The page needs no network; it holds the sound as MP3.

    Exit status 3: some files could not be read; they are named, also on the page.
    """
    from ..visualize.report import Settings, write_report

    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output must end in .html, got {str(output)!r}")
    settings = Settings(
        mask_ratios=tuple(mask_ratio or (0.5, 0.75, 0.9)) if reconstructions else (),
        layout=layout,
        seconds=seconds,
        max_clips=max_clips,
        title=title,
        seed=seed,
    )
    files = find_audio(audio)  # before the model is loaded: an empty folder is told at once
    if not files:
        raise ValueError(f"no audio files in {', '.join(map(str, audio))}")
    model = load_model(weights).to(usable_device(device))
    outcome = write_report(output, audio, model, settings, progress=_bar)
    for path, reason in outcome.failed:
        print(f"could not read {path}: {reason}", file=sys.stderr)
    if outcome.found > outcome.chosen:
        print(f"{outcome.chosen} of {outcome.found} files chosen evenly; see --max-clips")
    size = output.stat().st_size / 1e6
    print(f"{outcome.shown} of {outcome.chosen} files -> {output} ({size:.1f} MB)")
    if outcome.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def reconstruct(
    audio: Annotated[Path, typer.Argument(help="Audio file.")],
    output: Picture,
    wav: Annotated[
        Path | None,
        typer.Option(help="File to write the sound of the reconstruction to, .wav (Griffin-Lim)."),
    ] = None,
    weights: Weights = "",
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches that is hidden.")] = 0.75,
    start: Start = 0.0,
    seconds: Seconds = CLIP_SECONDS,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Hide patches of a recording, predict them from the others, and draw all three."""
    from ..visualize.clip import hide, masked_autoencoder
    from ..visualize.clip import reconstruct as run
    from ..visualize.plots import Panel, draw
    from ..visualize.sound import to_waveform

    _require_suffix("--output", output, ".png")
    if wav is not None:
        _require_suffix("--wav", wav, ".wav")
    model, waveform, clip = _clip(audio, start, seconds, weights, device)
    result = run(masked_autoencoder(model), clip, mask_ratio, seed)
    frames = num_frames(len(waveform))
    seen, predicted = hide(clip, result.hidden, model.config), result.output
    low, high = float(clip[:, :frames].min()), float(clip[:, :frames].max())
    panels = [
        Panel("input", clip, low, high),
        Panel(f"what the encoder sees, mask ratio {mask_ratio:g}", seen, low, high),
        Panel("reconstruction", predicted, low, high),
    ]
    draw(output, [[panel] for panel in panels], model.config.n_mels, frames, clip.shape[1])
    print(f"{len(waveform) / SAMPLE_RATE:.2f} s of {printable(audio)} -> {output}")
    if wav is not None:
        mean, std = model.frontend.norm_mean.cpu(), model.frontend.norm_std.cpu()
        sound = to_waveform(predicted[:, :frames] * std + mean, seed).clamp(-1, 1)
        with replacing(wav) as temporary:
            soundfile.write(temporary, sound.numpy(), SAMPLE_RATE, subtype="PCM_16")
        print(f"its sound -> {wav}")


def attention(
    audio: Annotated[Path, typer.Argument(help="Audio file.")],
    output: Picture,
    weights: Weights = "",
    block: Annotated[int, typer.Option(help="Which block; negative from the end.")] = -1,
    queries: Annotated[
        str,
        typer.Option(help="Who attends: patches (mean over all of them) or cls (the CLS token)."),
    ] = "patches",
    start: Start = 0.0,
    seconds: Seconds = CLIP_SECONDS,
    device: Device = "cpu",
) -> None:
    """Draw how much attention each patch of a recording gets, in all heads and in each."""
    from ..visualize.clip import attention_map
    from ..visualize.plots import Panel, draw

    _require_suffix("--output", output, ".png")
    model, waveform, clip = _clip(audio, start, seconds, weights, device)
    heads = attention_map(model, clip, block, queries)  # (h, rows, columns)
    frames = num_frames(len(waveform))
    top = max(1.0, float(np.quantile(heads.numpy(), 0.99)))
    panels = [
        Panel("input", clip, float(clip[:, :frames].min()), float(clip[:, :frames].max())),
        Panel("attention, mean of the heads (1 is an even share)", heads.mean(0), 0, top),
    ]
    panels += [Panel(f"head {i}", head, 0, top) for i, head in enumerate(heads)]
    draw(output, [[panel] for panel in panels], model.config.n_mels, frames, clip.shape[1])
    print(f"{len(waveform) / SAMPLE_RATE:.2f} s of {printable(audio)} -> {output}")


def _clip(
    audio: Path, start: float, seconds: float, weights: str, device: str
) -> tuple[HearModel, Tensor, Tensor]:
    """The model, a stretch of a file (n,), and its spectrogram (f, t) on the CPU."""
    from ..visualize.clip import spectrogram

    if not seconds > 0:
        raise ValueError(f"--seconds must be positive, got {seconds}")
    waveform = torch.from_numpy(read_audio(audio, start, start + seconds))
    model = load_model(weights).to(usable_device(device))
    return model, waveform, spectrogram(model, waveform).cpu()


def _require_suffix(option: str, path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} must end in {suffix}, got {str(path)!r}")


def _bar(files: Sequence[Path]) -> Iterable[Path]:
    return tqdm(files, unit="clip", desc="report", disable=None)


COMMANDS = (report, reconstruct, attention)
