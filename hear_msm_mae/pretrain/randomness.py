"""Random numbers without a state, as a hash of (seed, stream, step, sample).

A number is the same in every process, on every device, and in a resumed run, because the hash is
integer arithmetic of 64 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Independent streams of random numbers under one seed.
TRAIN, TRAIN_MASK, HELD_OUT, HELD_OUT_MASK, SPLIT = range(5)

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio, as a signed integer


def random_bits(seed: int, stream: int, step: int, samples: Tensor, count: int) -> Tensor:
    """Random 64-bit integers as a hash of the arguments; the same on every device.

    Args:
        seed, stream, step: seed, stream of random numbers, and step.
        samples: (b,) int64 numbers of the samples.
        count: number of integers for each sample; the first ones do not depend on it.

    Returns:
        (b, count) int64, all 64 bits random.

    >>> random_bits(0, 0, 0, torch.arange(2), 1).flatten().tolist()
    [7780345916685949976, 5167107053587251381]
    """
    key = torch.tensor(_GOLDEN)  # not zero, because the hash of zero is zero
    for word in (seed, stream, step):
        key = _scrambled(key * _GOLDEN + word)
    return more_bits(_scrambled(samples * _GOLDEN + int(key)), count)


def more_bits(keys: Tensor, count: int) -> Tensor:
    """Random integers (b, count) from one random integer of each sample, (b,) int64."""
    return _scrambled(keys[:, None] + torch.arange(count, device=keys.device) * _GOLDEN)


def _scrambled(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers: the finaliser of splitmix64 (Steele et al. 2014)."""
    # Products wrap around as unsigned ones do. After a shift the copied sign bits are removed.
    x = (x ^ ((x >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return x ^ ((x >> 31) & (2**33 - 1))


def below(bits: Tensor, bound: Tensor) -> Tensor:
    """Uniform integers 0 <= i < bound < 2**31."""
    return (((bits >> 33) & (2**31 - 1)) * bound) >> 31


def between(bits: Tensor, low: float, high: float) -> Tensor:
    """Uniform float32 numbers, equal on all devices."""
    return ((bits >> 40) & (2**24 - 1)).float() * ((high - low) * 2.0**-24) + low
