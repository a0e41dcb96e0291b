"""Draw docs/pipeline.png: one unit of a recording on its way to embeddings.

    python docs/pipeline.py

Needs the extra `visual`. Everything in the picture is computed by the bundled weights.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch

import hear_msm_mae
from hear_msm_mae.audio import read_audio

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parent.parent
SECONDS, BLUE = 2.08, "#26547c"


def panel(figure, left, width, title, shape):
    """Axes with a title above and the shape below, without ticks."""
    axes = figure.add_axes((left, 0.2, width, 0.58), xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    axes.text(0.5, -0.07, shape, transform=axes.transAxes, ha="center", va="top", fontsize=8)
    return axes


def arrow(figure, left):
    figure.text(left, 0.48, "→", fontsize=16, ha="center", va="center", color="#555555")


def draw(output):
    model = hear_msm_mae.load_model(timestamp_hop_ms=160)
    waveform = read_audio(ROOT / "examples" / "speech_english_reader_1.wav")
    samples = round(SECONDS * model.sample_rate)
    audio = torch.from_numpy(waveform[samples // 2 : samples // 2 + samples])[None]
    frames, _ = hear_msm_mae.get_timestamp_embeddings(audio, model)
    scene = hear_msm_mae.get_scene_embeddings(audio, model)[0].numpy()
    config = model.config
    log_mel = model.frontend(audio)[0, :, : config.unit_frames]

    figure = plt.figure(figsize=(11, 2.5))
    axes = panel(figure, 0.01, 0.13, "waveform", f"{samples} samples, 2.08 s")
    axes.plot(audio[0].numpy(), color=BLUE, linewidth=0.3)
    arrow(figure, 0.155)
    axes = panel(
        figure,
        0.17,
        0.25,
        "log-mel in patches",
        f"{config.n_mels} mel bins × {config.unit_frames} frames; "
        f"{config.rows} × {config.columns} patches",
    )
    axes.imshow(log_mel.numpy(), origin="lower", aspect="auto", cmap="magma")
    for x in range(config.patch_frames, config.unit_frames, config.patch_frames):
        axes.axvline(x - 0.5, color="white", linewidth=0.5)
    for y in range(config.patch_mels, config.n_mels, config.patch_mels):
        axes.axhline(y - 0.5, color="white", linewidth=0.5)
    arrow(figure, 0.435)
    axes = panel(figure, 0.45, 0.16, "encoder", f"{config.rows * config.columns} tokens")
    axes.axis("off")
    for block in range(4):
        place = (0.05 + 0.04 * block, 0.05 + 0.06 * block)
        box = FancyBboxPatch(place, 0.72, 0.66, boxstyle="round,pad=0.03", fc="#dce6ef", ec=BLUE)
        axes.add_patch(box)
    text = f"{config.depth} blocks\nwidth {config.width}"
    axes.text(0.53, 0.56, text, ha="center", va="center", fontsize=9, color=BLUE)
    arrow(figure, 0.625)
    embeddings = frames[0].numpy()
    order = np.argsort(np.argmax(embeddings, axis=0))
    shape = f"{embeddings.shape[1]} values, one column per time step"
    axes = panel(figure, 0.64, 0.2, "frame embeddings", shape)
    shown = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    axes.imshow(shown[:, order].T, aspect="auto", cmap="RdBu_r", vmin=-2.5, vmax=2.5)
    arrow(figure, 0.86)
    axes = panel(figure, 0.885, 0.1, "scene embedding", f"{len(scene)} values")
    values = scene[: embeddings.shape[1]]
    axes.barh(np.arange(0, len(values), 24), values[::24], height=18, color=BLUE)
    figure.savefig(output, dpi=130)


if __name__ == "__main__":
    draw(ROOT / "docs" / "pipeline.png")
