"""hear-msm-mae attention, reconstruct and report: pictures of recordings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from .common import Device, Weights, load, report_failures, require_suffix, say, starting

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import HearModel
    from ..plots import Panel

Audio = Annotated[Path, typer.Argument(help="Audio file.")]
Picture = Annotated[Path, typer.Option("--output", "-o", help="File to write, .png.")]
Start = Annotated[float, typer.Option(help="Start in the file in seconds.")]
Seconds = Annotated[float, typer.Option(help="Maximum length in seconds.")]
Seed = Annotated[int, typer.Option(help="Random seed of the masks.")]
CLIP_SECONDS = 10.0


class _Clip(NamedTuple):
    """A part of a file: its waveform (n,), and its log-mel spectrogram (f, t) on the CPU.

    The spectrogram has `frames` frames and then silence up to a whole patch.
    """

    model: HearModel
    waveform: Tensor
    log_mel: Tensor
    frames: int

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value."""
        inside = self.log_mel[:, : self.frames]
        return float(inside.min()), float(inside.max())

    def draw(self, audio: Path, output: Path, panels: Sequence[Panel]) -> None:
        """Write a picture with the panels below each other."""
        from ..plots import draw

        rate, covered = self.model.sample_rate, self.log_mel.shape[1]
        n_mels = self.model.config.n_mels
        draw(output, [[panel] for panel in panels], n_mels, self.frames, covered, rate)
        say(f"{len(self.waveform) / rate:.2f} s of {audio} -> {output}")


def _load_clip(audio: Path, start: float, seconds: float, weights: str, device: str) -> _Clip:
    if not seconds > 0:
        raise ValueError(f"--seconds must be positive, got {seconds}")
    with starting():
        import torch

        from ..audio import read_audio
        from ..visualize.clip import spectrogram

        model = load(weights, device)
        samples = read_audio(audio, start, start + seconds, sample_rate=model.sample_rate)
        waveform = torch.from_numpy(samples)
        log_mel = spectrogram(model, waveform).cpu()
    return _Clip(model, waveform, log_mel, model.config.num_frames(len(waveform)))


def attention(
    audio: Audio,
    output: Picture,
    weights: Weights = "",
    block: Annotated[int, typer.Option(help="Index of the block; negative from the end.")] = -1,
    queries: Annotated[
        str,
        typer.Option(help="Tokens that attend: patches (the mean of all) or cls (the CLS token)."),
    ] = "patches",
    start: Start = 0.0,
    seconds: Seconds = CLIP_SECONDS,
    device: Device = "cpu",
) -> None:
    """Draw how much attention each patch of a recording gets, in each head and on average."""
    require_suffix("--output", output, ".png")
    clip = _load_clip(audio, start, seconds, weights, device)

    import numpy as np

    from ..plots import Panel
    from ..visualize.clip import attention_map

    heads = attention_map(clip.model, clip.log_mel, block, queries)  # (h, rows, columns)
    top = max(1.0, float(np.quantile(heads.numpy(), 0.99)))
    panels = [
        Panel("input", clip.log_mel, *clip.range),
        Panel("attention, mean of the heads (1 is an even share)", heads.mean(0), 0, top),
    ]
    panels += [Panel(f"head {i}", head, 0, top) for i, head in enumerate(heads)]
    clip.draw(audio, output, panels)


def reconstruct(
    audio: Audio,
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
    clip = _load_clip(audio, start, seconds, weights, device)

    import soundfile

    from ..files import replacing
    from ..plots import Panel
    from ..visualize.clip import hide, masked_autoencoder
    from ..visualize.clip import reconstruct as run
    from ..visualize.sound import to_waveform

    model = clip.model
    hidden, predicted = run(masked_autoencoder(model), clip.log_mel, mask_ratio, seed)
    seen = hide(clip.log_mel, hidden, model.config)
    panels = [
        Panel("input", clip.log_mel, *clip.range),
        Panel(f"what the encoder sees, mask ratio {mask_ratio:g}", seen, *clip.range),
        Panel("reconstruction", predicted, *clip.range),
    ]
    clip.draw(audio, output, panels)
    if wav is not None:
        mean, std = model.frontend.norm_mean.cpu(), model.frontend.norm_std.cpu()
        log_mel = predicted[:, : clip.frames] * std + mean
        sound = to_waveform(log_mel, seed, model.sample_rate).clamp(-1, 1)
        with replacing(wav) as temporary:
            soundfile.write(temporary, sound.numpy(), model.sample_rate, subtype="PCM_16")
        say(f"its sound -> {wav}")


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
    require_suffix("--output", output, ".html", ".htm")
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
    if outcome.found > outcome.chosen:
        say(f"{outcome.chosen} of {outcome.found} files chosen evenly; see --max-clips")
    size = output.stat().st_size / 1e6
    say(f"{outcome.shown} of {outcome.chosen} files -> {output} ({size:.1f} MB)")
    report_failures(outcome.failed)


def _bar(files: Sequence[Path]) -> Iterable[Path]:
    from tqdm import tqdm

    return tqdm(files, unit="clip", desc="report", disable=None)
