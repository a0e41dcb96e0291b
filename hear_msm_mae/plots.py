"""Spectrograms and maps of patches as PNG files (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .config import MS_PER_FRAME, SAMPLE_RATE
from .files import replacing
from .log_mel import mel_filter_bank

HERTZ = (250, 1000, 2000, 4000, 7000, 14_000)  # labels of the frequency axis
INSTALL = "pip install 'hear_msm_mae[visual]'"


class Panel(NamedTuple):
    """One panel of a figure."""

    title: str
    values: Tensor
    """(f, t) spectrogram, NaN where nothing is to be drawn, or (rows, columns) of patches."""
    low: float
    """Value of the darkest colour."""
    high: float
    """Value of the brightest colour."""


def draw(
    path: str | Path,
    grid: Sequence[Sequence[Panel]],
    n_mels: int,
    frames: int,
    covered: int | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Write a figure whose panels have the same time axis.

    Args:
        path: file to write, `.png`.
        grid: rows of panels, all of the same length.
        n_mels: mel bins f of the spectrograms.
        frames: length of the time axis in frames.
        covered: frames in the panels, if more than `frames`; the rest is not shown.
        sample_rate: sample rate of the audio in Hz; the mel bands reach up to half of it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"pictures need matplotlib: {INSTALL}") from error

    columns = len(grid[0])
    figure = Figure(figsize=(12, 1.6 * len(grid) + 0.8), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(grid), columns, squeeze=False, sharex=True, sharey=True)
    seconds = MS_PER_FRAME / 1000
    for row, panels in zip(axes, grid, strict=True):
        for axis, panel in zip(row, panels, strict=True):
            axis.set_title(panel.title, fontsize=10, loc="left")
            image = axis.imshow(
                panel.values.numpy(),
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                cmap="magma",
                vmin=panel.low,
                vmax=panel.high,
                extent=(0, (covered or frames) * seconds, 0, n_mels),
            )
            axis.set_xlim(0, frames * seconds)
            axis.set_facecolor("0.85")  # hidden patches
        _colour_bar(figure, image, row[-1])
    ticks = mel_positions(n_mels, sample_rate)
    axes[0, 0].set_yticks([n_mels * at for at in ticks.values()], [f"{hz:g}" for hz in ticks])
    figure.supxlabel("seconds", fontsize=10)
    figure.supylabel("Hz", fontsize=10)
    with replacing(path) as temporary:
        canvas.print_png(str(temporary))


def mel_positions(n_mels: int, sample_rate: int = SAMPLE_RATE) -> dict[int, float]:
    """Positions of the frequencies `HERTZ` on the mel axis, from 0 to 1."""
    basis = mel_filter_bank(n_mels, sample_rate).numpy()  # (201, f) at 16 kHz
    hertz = np.linspace(0, sample_rate / 2, len(basis))
    centres = hertz @ basis / basis.sum(0)
    shown = [hz for hz in HERTZ if hz < sample_rate / 2]
    at = np.interp(shown, centres, (np.arange(n_mels) + 0.5) / n_mels)
    return dict(zip(shown, at.tolist(), strict=True))


def _colour_bar(figure: Any, image: Any, axis: Any) -> None:
    bar = figure.colorbar(image, ax=axis, pad=0.01, aspect=12)
    bar.ax.tick_params(labelsize=8)
