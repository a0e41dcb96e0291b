"""Does overlapping input units reduce the jump of embeddings at unit boundaries?

Stationary noise has no events, so neighbouring frame embeddings should be about equally similar
everywhere. Prints, per overlap, the mean cosine similarity of neighbours inside a unit and across
a boundary (each embedding's mean over the clip kept, as users see it), and the cost relative to no
overlap.

    python -m benchmarks.unit_boundaries [WEIGHTS]
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F

from hear_msm_mae import get_timestamp_embeddings, load_model
from hear_msm_mae.units import split_units

SECONDS = 30
CLIPS = 4


def pink_noise(clips: int, samples: int) -> torch.Tensor:
    """Stationary 1/f noise, (clips, samples), rms 0.05."""
    spectrum = torch.fft.rfft(
        torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))
    )
    spectrum /= torch.arange(1, spectrum.shape[1] + 1).sqrt()
    noise = torch.fft.irfft(spectrum, samples)
    return noise * 0.05 / noise.square().mean().sqrt()


def main(weights: str = "") -> None:
    noise = pink_noise(CLIPS, SECONDS * 16000)
    print("| overlap (patches) | inside a unit | across a boundary | encoder cost |")
    print("|---|---|---|---|")
    for overlap in (0, 1, 2, 4, 6):
        hop = load_model(weights).config.native_hop_ms
        model = load_model(weights, timestamp_hop_ms=hop, unit_overlap=overlap)
        frames, _ = get_timestamp_embeddings(noise, model)
        similarity = F.cosine_similarity(frames[:, 1:], frames[:, :-1], dim=-1).mean(0)
        units = split_units(frames.shape[1], model.config.columns, overlap)
        # Neighbours t, t + 1 lie across a boundary when t + 1 is the first kept of a unit.
        edges = torch.tensor([unit.first + unit.keep_from - 1 for unit in units[1:]])
        inside = torch.ones(len(similarity), dtype=torch.bool)
        inside[edges] = False
        cost = sum(unit.columns for unit in units) / frames.shape[1]
        across, within = similarity[edges].mean(), similarity[inside].mean()
        print(f"| {overlap} | {within:.4f} | {across:.4f} | {cost:.2f} x |")


if __name__ == "__main__":
    main(*sys.argv[1:])
