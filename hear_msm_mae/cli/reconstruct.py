"""hear-msm-mae reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    CLIP_SECONDS,
    Device,
    Picture,
    Seconds,
    Seed,
    Start,
    Weights,
    load_clip,
    require_suffix,
    say,
)


def reconstruct(
    audio: Annotated[Path, typer.Argument(help="Audio file.")],
    output: Picture,
    wav: Annotated[
        Path | None,
        typer.Option(help="Also write the sound of the reconstruction (Griffin-Lim), .wav."),
    ] = None,
    weights: Weights = "",
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches that is masked.")] = 0.75,
    start: Start = 0.0,
    seconds: Seconds = CLIP_SECONDS,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Mask patches of a recording, predict them, and draw input, masked input and prediction."""
    require_suffix("--output", output, ".png")
    if wav is not None:
        require_suffix("--wav", wav, ".wav")
    model, waveform, clip = load_clip(audio, start, seconds, weights, device)

    import soundfile

    from ..files import replacing
    from ..plots import Panel, draw
    from ..visualize.clip import hide, masked_autoencoder
    from ..visualize.clip import reconstruct as run
    from ..visualize.sound import to_waveform

    result = run(masked_autoencoder(model), clip, mask_ratio, seed)
    rate, frames = model.sample_rate, model.config.num_frames(len(waveform))
    seen, predicted = hide(clip, result.hidden, model.config), result.output
    low, high = float(clip[:, :frames].min()), float(clip[:, :frames].max())
    panels = [
        Panel("input", clip, low, high),
        Panel(f"what the encoder sees, mask ratio {mask_ratio:g}", seen, low, high),
        Panel("reconstruction", predicted, low, high),
    ]
    draw(output, [[panel] for panel in panels], model.config.n_mels, frames, clip.shape[1], rate)
    say(f"{len(waveform) / rate:.2f} s of {audio} -> {output}")
    if wav is not None:
        mean, std = model.frontend.norm_mean.cpu(), model.frontend.norm_std.cpu()
        sound = to_waveform(predicted[:, :frames] * std + mean, seed, rate).clamp(-1, 1)
        with replacing(wav) as temporary:
            soundfile.write(temporary, sound.numpy(), rate, subtype="PCM_16")
        say(f"its sound -> {wav}")
