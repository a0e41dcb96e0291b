"""Crops and masks of every training step, as a pure function of (seed, step, sample).

There is no state: a sample of a step is the same in every process, on every device, and in a
resumed run.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ..corpus.bank import Bank
from ..mae import Mask
from .augmentation import augmented, to_log_mel, to_power
from .randomness import (
    HELD_OUT,
    HELD_OUT_MASK,
    SPLIT,
    TRAIN,
    TRAIN_MASK,
    below,
    random_bits,
)
from .settings import Settings

# Random numbers of a crop: four say where the crops are cut out, the others change them.
CLIP, START, MIX_CLIP, MIX_START = range(4)
CHANGES = 8
GOLDEN_RATIO = 5**0.5 / 2 - 0.5


class Batch(NamedTuple):
    """A part of the global batch of a step: b crops with m masks each."""

    frames: Tensor  # (b, t, f) float16 log-mel, neither normalised nor augmented
    second: Tensor | None  # (k, t, f) crops that are mixed into some of them
    mixed: Tensor | None  # (k,) int64 indices of these
    procedural: Tensor | None  # (p,) int64 indices of the crops that formulas replace
    changes: Tensor  # (b, 8) int64 random numbers of the augmentation
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
        if held_out:
            off = dict.fromkeys(("gain_db", "tilt_db", "mix", "reverb", "procedural"), 0.0)
            settings = dataclasses.replace(settings, **off, data_seed=None)  # type: ignore[arg-type]
        self.bank, self.settings = bank, settings
        self.config = settings.model_config(bank.mean, bank.std)
        self.streams = (HELD_OUT, HELD_OUT_MASK) if held_out else (TRAIN, TRAIN_MASK)
        self.seed = settings.seed if settings.data_seed is None else settings.data_seed
        weights = clip_weights(bank, settings.source_weights)
        held = held_out_clips(len(bank), settings.holdout, settings.seed)
        weights = torch.where(held if held_out else ~held, weights, 0.0)
        if not weights.sum() > 0:
            raise ValueError(
                "no clips to train on: the corpus is empty or source_weights and holdout "
                "leave nothing"
            )
        cumulative = weights.cumsum(0)
        thresholds = (cumulative / cumulative[-1] * 2.0**53).long()
        self.thresholds = thresholds.to(bank.device)  # (c,) of 53-bit integers
        self._places = functools.cache(self._indices)

    def batch(self, step: int, samples: range, pin: bool = False) -> Batch:
        """Samples of the global batch of a step; `masks` in a row share a crop.

        Args:
            step: number of the step.
            samples: numbers of the samples, a multiple of `masks`.
            pin: return page-locked memory, for asynchronous copies to a GPU.
        """
        s, device = self.settings, self.bank.device
        crops_stream, masks_stream = self.streams
        crops = range(samples.start // s.masks, samples.stop // s.masks)
        number = torch.arange(crops.start, crops.stop, device=device)
        bits = random_bits(self.seed, crops_stream, step, number, 4 + CHANGES)
        mixed, procedural = self._places(crops)
        second = None
        if mixed is not None:
            second = self._crops(bits[mixed, MIX_CLIP], bits[mixed, MIX_START], pin)
        number = torch.arange(samples.start, samples.stop, device=device)
        patches = s.model.rows * s.model.columns
        keys = random_bits(self.seed, masks_stream, step, number, patches)
        frames = self._crops(bits[:, CLIP], bits[:, START], pin)
        order = keys.argsort(dim=1, stable=True)
        batch = Batch(frames, second, mixed, procedural, bits[:, 4:], order)
        return batch.map(torch.Tensor.pin_memory) if pin else batch

    def place(self, clip_bits: Tensor, start_bits: Tensor) -> tuple[Tensor, Tensor]:
        """Clips and first frames of crops; a negative frame means silence before the clip."""
        point = (clip_bits >> 11) & (2**53 - 1)
        clips = torch.searchsorted(self.thresholds, point, right=True)
        spare = self.bank.lengths[clips] - self.settings.model.unit_frames
        return clips, below(start_bits, spare.abs() + 1) * spare.sign()

    def _indices(self, crops: range) -> tuple[Tensor | None, Tensor | None]:
        """Indices of mixed and of procedural crops; cached, because copying them would wait."""
        share = self.settings.procedural
        # Multiples of the golden ratio spread evenly, and independently of the mixed crops.
        drawn = [i for i, g in enumerate(crops) if g * GOLDEN_RATIO % 1 < share]
        places = spread(crops, self.settings.mix), drawn
        mixed, procedural = (
            torch.tensor(found, device=self.bank.device) if found else None for found in places
        )
        return mixed, procedural

    def _crops(self, clip_bits: Tensor, start_bits: Tensor, pin: bool) -> Tensor:
        place = self.place(clip_bits.contiguous(), start_bits)
        return self.bank.crops(*place, self.settings.model.unit_frames, pin)

    def arguments(self, batch: Batch) -> tuple[Tensor, Mask]:
        """Arguments of the masked autoencoder."""
        mask = split_order(batch.order, self.settings.mask_ratio)
        return self.spectrogram(batch), mask

    def spectrogram(self, batch: Batch) -> Tensor:
        """Input of the model: crops (b, f, t) float32, augmented and normalised."""
        s, mean, std = self.settings, self.config.norm_mean, self.config.norm_std
        x = batch.frames.to(torch.float32, copy=True)  # all else is done in place
        if s.gain_db or s.tilt_db or s.mix or s.reverb or s.procedural:
            _, second, mixed, procedural, changes, _ = batch
            x = augmented(to_power(x), changes, second, mixed, procedural, s, (mean, std))
            to_log_mel(x)
        return x.sub_(mean).div_(std).transpose(1, 2)


def spread(crops: range, share: float) -> list[int]:
    """Indices of an evenly spread share of the crops.

    >>> spread(range(8, 16), 0.25)
    [3, 7]
    """
    return [i for i, g in enumerate(crops) if int((g + 1) * share) > int(g * share)]


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
    sampler: Sampler, parts: list[range], first: int, device: torch.device
) -> Generator[list[Batch], None, None]:
    """The batches of step `first` and all later ones on a device, a list of parts for each step.

    If the bank is on the host, a thread gathers the crops of the next step in page-locked memory
    while the device computes, and they are copied asynchronously.
    """
    pin = device.type == "cuda" and sampler.bank.device.type == "cpu"

    def draw(step: int) -> list[Batch]:
        return [sampler.batch(step, part, pin) for part in parts]

    if sampler.bank.device == device:
        yield from map(draw, itertools.count(first))
    with ThreadPoolExecutor(1) as pool:
        drawn = (pool.submit(draw, step) for step in itertools.count(first))
        for batches, _ in itertools.pairwise(drawn):
            yield [batch.to(device) for batch in batches.result()]
