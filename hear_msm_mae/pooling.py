"""Scene embeddings: mean over time of the frame embeddings and, if asked for, their spread."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """What the scene embedding of a clip is made of; those of its pieces add up.

    Attributes:
        moments: (1, d) or (2, d) float64: sums over time of the weighted frame embeddings and, for
            their standard deviation, of the squares.
        weight: sum of the weights.
    """

    moments: Tensor
    weight: float

    def __add__(self, other: Sums) -> Sums:  # type: ignore[override]
        return Sums(self.moments + other.moments, self.weight + other.weight)


def moments_of(embeddings: Tensor, weights: Tensor, powers: int) -> Tensor:
    """Weighted sums over time of values and, if asked for, squares: (u, t, d) -> (u, powers, d)."""
    values = embeddings.to(weights.dtype)
    # Not a matrix product, which autocast would compute in bfloat16.
    sums = [(weights[..., None] * values**k).sum(dim=1) for k in range(1, powers + 1)]
    return torch.stack(sums, dim=1)


def pooled(sums: Sums) -> Tensor:
    """The scene embedding of a clip: mean over time and, where squares were summed, the spread.

    Shape:
        - output: (d,) float32, or (2 d,): mean, then standard deviation
    """
    mean, *squares = (sums.moments / sums.weight).unbind()
    if not squares:
        return mean.float()
    variance = squares[0] - mean.square()
    # The root of zero has no gradient; rounding can make the variance of equal frames negative.
    positive = variance > 0
    std = torch.where(positive, variance, 1.0).sqrt() * positive
    return torch.cat([mean, std]).float()
