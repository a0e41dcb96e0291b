"""Crops and masks of every training step, as a pure function of (seed, step, sample).

There is no state: a sample of a step is the same in every process, on every device, and in a
resumed run. All choices come from one hash of 64-bit integers, which is bit-identical on all
devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import LOG_EPS
from ..corpus.bank import Bank
from ..mae import Mask
from .settings import Settings

# Independent streams of random numbers under one seed.
TRAIN, TRAIN_MASK, HELD_OUT, HELD_OUT_MASK, SPLIT = range(5)
# Index of each random number of a crop.
CLIP, START, MIX_CLIP, MIX_START, MIX_LEVEL, GAIN, TILT = range(7)
MIX_DB = (-20.0, 0.0)  # level of the second crop relative to the first

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio, as a signed integer


# ---------------------------------------------------------------------------------------------
# Random numbers
# ---------------------------------------------------------------------------------------------
def random_bits(seed: int, stream: int, step: int, samples: Tensor, count: int) -> Tensor:
    """Random 64-bit integers as a hash of the arguments; the same on every device.

    Args:
        seed, stream, step: seed, stream of random numbers, and step.
        samples: (b,) int64 numbers of the samples.
        count: number of integers for each sample.

    Returns:
        (b, count) int64, all 64 bits random.

    >>> random_bits(0, 0, 0, torch.arange(2), 1).flatten().tolist()
    [7780345916685949976, 5167107053587251381]
    """
    key = torch.tensor(_GOLDEN)  # not zero, because the hash of zero is zero
    for word in (seed, stream, step):
        key = _scrambled(key * _GOLDEN + word)
    rows = _scrambled(samples * _GOLDEN + int(key))  # (b,)
    columns = torch.arange(count, device=samples.device) * _GOLDEN
    return _scrambled(rows[:, None] + columns)


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


# ---------------------------------------------------------------------------------------------
# Crops
# ---------------------------------------------------------------------------------------------
class Batch(NamedTuple):
    """A part of the global batch of a step: b crops with m masks each."""

    frames: Tensor  # (b, t, f) float16 log-mel, neither normalised nor augmented
    second: Tensor | None  # (k, t, f) what is mixed into some of the crops
    mixed: Tensor | None  # (k,) int64, into which ones
    levels: Tensor  # (b, 3) float32, dB: of the second crop, gain, tilt
    order: Tensor  # (b m, l) int64, permutations of the patches; the first ones stay visible

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply a function to each tensor."""
        return Batch(*(x if x is None else function(x) for x in self))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, asynchronously if the tensors are page-locked."""
        return self.map(lambda x: x.to(device, non_blocking=True))


class Sampler:
    """Draws crops from the clips of a bank, and masks.

    The probability of a clip is proportional to its duration and the weight of its source. The
    start is uniform in the clip. Clips shorter than the crop lie at a random position in silence.

    Args:
        bank: clips and their sources; crops are drawn on its device.
        settings: crop length, weights, hold-out, augmentation, seed.
        held_out: draw from the held-out clips, without augmentation, so that runs with different
            settings can be compared.

    Raises:
        ValueError: there are no clips to draw from, or a weighted source does not exist.
    """

    def __init__(self, bank: Bank, settings: Settings, held_out: bool = False) -> None:
        self.bank = bank
        config = settings.model_config(bank.mean, bank.std)
        self.mean, self.std = config.norm_mean, config.norm_std
        self.settings = settings
        self.held_out = held_out
        self.seed = settings.seed
        if not held_out and settings.data_seed is not None:
            self.seed = settings.data_seed
        self.gain, self.tilt, self.mix = settings.gain_db, settings.tilt_db, settings.mix
        if held_out:
            self.gain = self.tilt = self.mix = 0.0
        weights = clip_weights(bank, settings.source_weights)
        held = held_out_clips(len(bank), settings.holdout, settings.seed)
        weights = torch.where(held if held_out else ~held, weights, 0.0)
        total = weights.sum()
        if not total > 0:
            raise ValueError(
                "no clips to train on: the corpus is empty or source_weights and holdout "
                "leave nothing"
            )
        cumulative = weights.cumsum(0)
        thresholds = (cumulative / cumulative[-1] * 2.0**53).long()
        self.thresholds = thresholds.to(bank.device)  # (c,) of 53-bit integers
        self._places: dict[range, Tensor | None] = {}

    def batch(self, step: int, samples: range, pin: bool = False) -> Batch:
        """Samples of the global batch of a step; `masks` in a row share a crop.

        Args:
            step: number of the step.
            samples: numbers of the samples, a multiple of `masks`.
            pin: return page-locked memory, for asynchronous copies to a GPU.
        """
        s, device = self.settings, self.bank.device
        stream, masks = (HELD_OUT, HELD_OUT_MASK) if self.held_out else (TRAIN, TRAIN_MASK)
        crops = range(samples.start // s.masks, samples.stop // s.masks)
        number = torch.arange(crops.start, crops.stop, device=device)
        bits = random_bits(self.seed, stream, step, number, 7)
        second, mixed = None, self._mixed(crops)
        if mixed is not None:
            second = self._crops(bits[mixed, MIX_CLIP], bits[mixed, MIX_START], pin)
        levels = (
            between(bits[:, MIX_LEVEL], *MIX_DB),
            between(bits[:, GAIN], -self.gain, self.gain),
            between(bits[:, TILT], -self.tilt, self.tilt),
        )
        number = torch.arange(samples.start, samples.stop, device=device)
        keys = random_bits(self.seed, masks, step, number, s.model.rows * s.model.columns)
        frames = self._crops(bits[:, CLIP], bits[:, START], pin)
        order = keys.argsort(dim=1, stable=True)
        batch = Batch(frames, second, mixed, torch.stack(levels, dim=1), order)
        return batch.map(torch.Tensor.pin_memory) if pin else batch

    def place(self, clip_bits: Tensor, start_bits: Tensor) -> tuple[Tensor, Tensor]:
        """Clips and first frames of crops; a negative frame means silence before the clip."""
        point = (clip_bits >> 11) & (2**53 - 1)
        clips = torch.searchsorted(self.thresholds, point, right=True)
        spare = self.bank.lengths[clips] - self.settings.model.unit_frames
        return clips, below(start_bits, spare.abs() + 1) * spare.sign()

    def _mixed(self, crops: range) -> Tensor | None:
        """Indices of the mixed crops on the device; cached, because a copy would wait for it."""
        if crops not in self._places:
            places = mixed_places(crops, self.mix)
            found = torch.tensor(places, device=self.bank.device) if places else None
            self._places[crops] = found
        return self._places[crops]

    def _crops(self, clip_bits: Tensor, start_bits: Tensor, pin: bool) -> Tensor:
        place = self.place(clip_bits.contiguous(), start_bits)
        return self.bank.crops(*place, self.settings.model.unit_frames, pin)

    def arguments(self, batch: Batch) -> tuple[Tensor, Mask]:
        """Arguments of the masked autoencoder."""
        mask = split_order(batch.order, self.settings.mask_ratio)
        return self.spectrogram(batch), mask

    def spectrogram(self, batch: Batch) -> Tensor:
        """Input of the model: crops (b, f, t) float32, augmented and normalised."""
        x = batch.frames.to(torch.float32, copy=True)  # all else is done in place
        level, gain, tilt = batch.levels[:, :, None, None].unbind(1)  # (b, 1, 1) each
        if self.gain or self.tilt or batch.second is not None:
            to_power(x)
            if batch.second is not None and batch.mixed is not None:
                second = to_power(batch.second.float()).mul_(to_factor(level[batch.mixed]))
                x.index_add_(0, batch.mixed, second)
            slope = torch.linspace(-1.0, 1.0, x.shape[-1], device=x.device)
            to_log_mel(x.mul_(to_factor(gain + tilt * slope if self.tilt else gain)))
        return x.sub_(self.mean).div_(self.std).transpose(1, 2)


def mixed_places(crops: range, share: float) -> list[int]:
    """Indices of the crops to which a second one is added: an evenly spread share.

    >>> mixed_places(range(8, 16), 0.25)
    [3, 7]
    """
    return [i for i, g in enumerate(crops) if int((g + 1) * share) > int(g * share)]


def to_power(log_mel: Tensor) -> Tensor:
    """Mel power of log-mel values, in place."""
    return log_mel.exp_().sub_(LOG_EPS).clamp_min_(0)


def to_log_mel(power: Tensor) -> Tensor:
    """Log-mel values of mel power, in place; the inverse of `to_power`."""
    return power.add_(LOG_EPS).log_()


def to_factor(decibels: Tensor) -> Tensor:
    """Power ratio of a level in dB."""
    return (decibels * (math.log(10) / 10)).exp()


def split_order(order: Tensor, mask_ratio: float) -> Mask:
    """The mask of permutations (b, l): the first int(l * (1 - ratio)), at least 1, are visible."""
    patches = order.shape[1]
    return Mask.from_permutation(order, min(patches - 1, max(1, int(patches * (1 - mask_ratio)))))


def clip_weights(bank: Bank, source_weights: Mapping[str, float]) -> Tensor:
    """(c,) float64 weight of each clip: its frames times the weight of its source.

    Raises:
        ValueError: a weight is given for a source that the corpus does not have.
    """
    known = set(bank.sources)
    if unknown := sorted(set(source_weights) - known):
        raise ValueError(
            f"source_weights names {unknown}, not in the corpus; its sources: {sorted(known)}"
        )
    factors = [source_weights.get(name, 1.0) for name in bank.sources]
    return bank.lengths.cpu().double() * torch.tensor(factors, dtype=torch.float64)


def held_out_clips(clips: int, share: float, seed: int) -> Tensor:
    """(c,) booleans: the share of clips that is held out; at least one clip, but never all."""
    count = min(max(round(clips * share), 1 if share > 0 else 0), max(clips - 1, 0))
    held = torch.zeros(clips, dtype=torch.bool)
    held[random_bits(seed, SPLIT, 0, torch.arange(clips), 1)[:, 0].argsort()[:count]] = True
    return held


# ---------------------------------------------------------------------------------------------
# Processes and devices
# ---------------------------------------------------------------------------------------------
def shares(settings: Settings, rank: int = 0, world_size: int = 1) -> list[range]:
    """The samples of the global batch that a process computes, in `accumulation` parts.

    Raises:
        ValueError: the batch cannot be divided.
    """
    s = settings
    part = s.batch // (s.accumulation * world_size)
    if part * s.accumulation * world_size != s.batch or part % s.masks:
        raise ValueError(
            f"batch ({s.batch}) must be a multiple of accumulation ({s.accumulation}) "
            f"times masks ({s.masks}) times the number of processes ({world_size})"
        )
    starts = [(i * world_size + rank) * part for i in range(s.accumulation)]
    return [range(start, start + part) for start in starts]


def feed(
    sampler: Sampler, parts: list[range], steps: Iterable[int], device: torch.device
) -> Generator[list[Batch], None, None]:
    """The batches of consecutive steps on a device, a list of parts for each step.

    If the bank is on the host, a thread gathers the crops of the next step in page-locked memory
    while the device computes, and they are copied asynchronously.
    """
    if sampler.bank.device == device:
        for step in steps:
            yield [sampler.batch(step, part) for part in parts]
        return
    pin = device.type == "cuda"
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for step in steps:
            coming = pool.submit(lambda s: [sampler.batch(s, p, pin) for p in parts], step)
            if waiting is not None:
                yield [batch.to(device) for batch in waiting.result()]
            waiting = coming
        if waiting is not None:
            yield [batch.to(device) for batch in waiting.result()]
