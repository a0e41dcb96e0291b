"""A self-contained HTML page about a folder of recordings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import find_audio, read_audio
from ..config import MS_PER_FRAME
from ..files import printable, replacing
from ..mae import MaskedAutoencoder
from ..model import HearModel
from ..plots import mel_positions
from .clip import attention_map, masked_autoencoder, reconstruct, spectrogram
from .media import picture_uri, sound_uri
from .neighbours import LAYOUTS, directions, layout_name, nearest, place
from .page import render

NEIGHBOURS = 6
MOST_FOLDERS = 24  # number of groups with different colours and shapes
ATTENTION_RANGE = (0.05, 0.98)  # quantiles that are drawn transparent and opaque
ATTENTION_STEPS = 99

Progress = Callable[[Sequence[Path]], Iterable[Path]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a page.

    Raises:
        ValueError: a value is impossible; the message names it.
    """

    mask_ratios: tuple[float, ...] = (0.5, 0.75, 0.9)
    """Shares of hidden patches that the reader can choose from; none leaves reconstructions out."""
    layout: str = "auto"
    """Map of the clips: "tsne", "pca" or "auto"."""
    seconds: float = 10.0
    """Of each file, from its start, at most."""
    max_clips: int = 200
    """Of more files, so many are chosen at even distances."""
    title: str = ""
    """Of the page; by default the sources' names."""
    seed: int = 0
    """Of masks and map."""

    def __post_init__(self) -> None:
        if bad := [ratio for ratio in self.mask_ratios if not 0 < ratio < 1]:
            raise ValueError(f"mask ratios must be between 0 and 1, exclusive, got {bad[0]}")
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds must be positive, got {self.seconds}")
        if self.max_clips < 1:
            raise ValueError(f"max_clips must be at least 1, got {self.max_clips}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {list(LAYOUTS)}, got {self.layout!r}")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Numbers of files, and the files that could not be read."""

    found: int
    chosen: int
    shown: int
    failed: list[tuple[str, str]]
    """(file, reason) of each that could not be read."""


def write_report(
    output: str | Path,
    sources: Sequence[str | Path],
    model: HearModel,
    settings: Settings = Settings(),
    progress: Progress = iter,
) -> Outcome:
    """Embed the clips, draw them, and write the page.

    Args:
        output: file to write, `.html`.
        sources: audio files and folders of them.
        model: from `load_model`.
        settings: settings of the page.
        progress: function that wraps the list of files, such as a progress bar.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: there are no audio files, none of them can be read, or the weights have no
            decoder for reconstructions.
        ImportError: matplotlib, pillow or scikit-learn is not installed.
    """
    failed: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        failed.append((printable(str(error.filename)), error.strerror or str(error)))

    files = find_audio(sources, on_error=note)
    if not files:
        raise ValueError(f"no audio files in {', '.join(map(printable, sources))}")
    chosen = _evenly(files, settings.max_clips)
    autoencoder = masked_autoencoder(model) if settings.mask_ratios else None
    names = dict(zip(chosen, names_and_folders(chosen, sources), strict=True))
    clips: list[dict[str, Any]] = []
    embeddings: list[Tensor] = []
    for path in progress(chosen):
        try:
            samples = read_audio(path, stop=settings.seconds, sample_rate=model.sample_rate)
            waveform = torch.from_numpy(samples)
            with torch.no_grad():
                embedding = model(waveform[None])[0].cpu()
        except (OSError, ValueError) as error:
            name = printable(path)
            failed.append((name, str(error).removeprefix(f"{name}: ")))
            continue
        embeddings.append(embedding)
        name, folder = names[path]
        clip = {"name": name, "folder": folder} | _look(waveform, model, autoencoder, settings)
        clips.append(clip)
    if not clips:
        raise ValueError(
            f"none of the {len(chosen)} files could be read; nothing was written. The first one: "
            f"{': '.join(failed[0])}"
        )
    _add_map(clips, torch.stack(embeddings).numpy(), settings)
    title = settings.title or ", ".join(printable(_own_name(Path(source))) for source in sources)
    outcome = Outcome(len(files), len(chosen), len(clips), failed)
    page = _about(model, settings, outcome) | {"title": title, "clips": clips}
    with replacing(output) as temporary:
        temporary.write_text(render(title, page), encoding="utf-8")
    return outcome


def names_and_folders(
    files: Sequence[Path], sources: Sequence[str | Path]
) -> list[tuple[str, str]]:
    """(name inside the folder, folder) of each file, for people.

    Folders are named relative to their source. If there are more folders than colours, their parent
    folders are used.
    """
    parts: list[tuple[str, ...]] = []  # folders, then the file
    for path in files:
        source = next(s for s in map(Path, sources) if path == s or path.is_relative_to(s))
        top = source if path != source else path.parent
        inside = path.relative_to(top).parts
        own = (_own_name(top),) if len(sources) > 1 or len(inside) == 1 else ()
        parts.append((*own, *inside))
    depth = max(len(path) - 1 for path in parts)
    while depth > 1 and len({path[:-1][:depth] for path in parts}) > MOST_FOLDERS:
        depth -= 1
    folders = [path[:-1][:depth] for path in parts]
    return [
        (printable("/".join(path[len(folder) :])), printable("/".join(folder)))
        for path, folder in zip(parts, folders, strict=True)
    ]


def _evenly(files: list[Path], most: int) -> list[Path]:
    """At most `most` of the files, evenly spaced, so that all folders are represented."""
    if len(files) <= most:
        return files
    return [files[i * len(files) // most] for i in range(most)]


def _own_name(path: Path) -> str:
    return Path(os.path.abspath(path)).name or "/"


def _look(
    waveform: Tensor, model: HearModel, autoencoder: MaskedAutoencoder | None, settings: Settings
) -> dict[str, Any]:
    """The data of one clip for the page."""
    clip = spectrogram(model, waveform)
    frames = model.config.num_frames(len(waveform))
    shown = clip[:, :frames].cpu().numpy()
    low, high = float(np.quantile(shown, 0.01)), float(shown.max())
    attention = attention_map(model, clip).mean(0)  # (rows, columns)
    # NumPy is used because torch's quantile refuses more than 2**24 values.
    least, most = np.quantile(attention.numpy(), ATTENTION_RANGE).tolist()
    steps = ((attention - least) / max(most - least, 1e-6)).clamp(0, 1) * ATTENTION_STEPS
    hidden, outputs = [], []
    for ratio in settings.mask_ratios:
        assert autoencoder is not None
        result = reconstruct(autoencoder, clip, ratio, settings.seed)
        hidden.append("".join("01"[value] for value in result.hidden.flatten().int().tolist()))
        outputs.append(picture_uri(result.output[:, :frames].numpy(), low, high))
    return {
        "seconds": len(waveform) / model.sample_rate,
        "frames": frames,
        "sound": sound_uri(waveform.numpy(), model.sample_rate),
        "picture": picture_uri(shown, low, high),
        "hidden": hidden,
        "outputs": outputs,
        "attention": steps.flatten().round().int().tolist(),
    }


def _add_map(
    clips: list[dict[str, Any]], embeddings: NDArray[np.float32], settings: Settings
) -> None:
    """Coordinates and neighbours of each clip."""
    unit = directions(embeddings)
    points = place(unit, settings.layout, settings.seed)
    for clip, point, near in zip(clips, points, nearest(unit, NEIGHBOURS), strict=True):
        clip["at"] = [round(float(value), 4) for value in point]
        clip["near"] = [[index, round(similarity, 3)] for index, similarity in near]


def _about(model: HearModel, settings: Settings, outcome: Outcome) -> dict[str, Any]:
    """Model, axes and numbers of files for the script of the page."""
    config = model.config
    ticks = mel_positions(config.n_mels, config.sample_rate).items()
    return {
        "model": f"{config.name}, {config.width}-d, {config.depth} blocks",
        "rows": config.rows,
        "patchFrames": config.patch_frames,
        "frameSeconds": MS_PER_FRAME / 1000,
        "sampleRate": config.sample_rate,
        "ratios": settings.mask_ratios,
        "normPixels": config.norm_pixels,
        "layout": layout_name(outcome.shown, settings.layout),
        "seconds": settings.seconds,
        "ticks": [[f"{hz / 1000:g}k" if hz >= 1000 else f"{hz}", round(at, 4)] for hz, at in ticks],
        "found": outcome.found,
        "chosen": outcome.chosen,
        "failed": outcome.failed,
    }
