"""Crops and masks of every training step, as a pure function of (seed, step, sample).

Nothing here keeps a state: sample g of step s is the same in whichever process, worker or resumed
run it is computed. So the position of the sampler is the step number.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import LOG_EPS
from ..log_mel import SILENCE
from ..mae import Mask
from .settings import Settings

TRAIN, HELD_OUT, SPLIT = 0, 1, 2  # independent streams of random numbers under one seed
MIX_DB = (-20.0, 0.0)  # level of the second crop relative to the first, before its own level


class CorpusLike(Protocol):
    """What training needs of a corpus (see corpus.py)."""

    mean: float
    std: float
    hours: float
    n_mels: int
    fingerprint: str
    clip_frames: NDArray[np.int64]
    clip_sources: list[str]

    def read(self, clip: int, start: int, length: int) -> NDArray[np.float16]: ...


class Batch(NamedTuple):
    """A part of a step's global batch."""

    spectrogram: Tensor  # (b, f, t) float32, normalised
    order: Tensor  # (b, l) int64, permutation of the patches; the first ones stay visible


def generator(seed: int, stream: int, step: int, sample: int) -> np.random.Generator:
    """Random numbers of one sample: a counter-based generator, so any of them at no cost."""
    # The first word of the counter runs while numbers are drawn; the others name the sample.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, stream, step, sample]))


class CropSampler:
    """Draws crops from the clips of a corpus.

    A clip's chance is its duration times the weight of its source, and the start is uniform in
    the clip, so that every stretch of audio is about equally likely. Clips shorter than the crop
    lie at a random place in silence.

    Args:
        corpus: clips and their sources.
        settings: crop length, weights, hold-out, augmentation, seed.
        held_out: draw from the held-out clips instead of the others.

    Raises:
        ValueError: no clips are left to draw from, or a weighted source does not exist.
    """

    def __init__(self, corpus: CorpusLike, settings: Settings, held_out: bool = False) -> None:
        self.corpus = corpus
        self.settings = settings
        self.stream = HELD_OUT if held_out else TRAIN
        self.seed = settings.seed
        if not held_out and settings.data_seed is not None:
            self.seed = settings.data_seed
        weights = clip_weights(corpus, settings.source_weights)
        held = held_out_clips(len(weights), settings.holdout, settings.seed)
        weights = np.where(held if held_out else ~held, weights, 0.0)
        if not weights.sum() > 0:
            raise ValueError(
                "no clips to train on: the corpus is empty or source_weights and holdout "
                "leave nothing"
            )
        self.cumulative = np.cumsum(weights)

    def place(self, random: np.random.Generator) -> tuple[int, int]:
        """Clip and first frame of a crop; negative when silence comes before the clip."""
        point = random.random() * self.cumulative[-1]
        clip = int(np.searchsorted(self.cumulative, point, side="right"))
        spare = int(self.corpus.clip_frames[clip]) - self.settings.unit_frames
        return clip, int(random.integers(spare + 1) if spare >= 0 else -random.integers(1 - spare))

    def crop(self, random: np.random.Generator) -> NDArray[np.float32]:
        """(f, t) log-mel, not normalised; for training augmented when the settings say so."""
        s = self.settings
        log_mel = self._read(*self.place(random))
        if self.stream == HELD_OUT:  # so that runs with other settings can be compared
            return log_mel
        if s.mix > 0 and random.random() < s.mix:
            level = random.uniform(*MIX_DB)
            log_mel = mix(log_mel, self._read(*self.place(random)), level)
        if s.gain_db > 0:
            log_mel = gain(log_mel, random.uniform(-s.gain_db, s.gain_db))
        return log_mel

    def _read(self, clip: int, start: int) -> NDArray[np.float32]:
        length = self.settings.unit_frames
        first = max(start, 0)
        available = min(length, int(self.corpus.clip_frames[clip]) - first)
        frames = self.corpus.read(clip, first, available)
        if available == length:
            return frames.astype(np.float32)
        log_mel = np.full((self.corpus.n_mels, length), SILENCE, dtype=np.float32)
        log_mel[:, first - start : first - start + available] = frames
        return log_mel


class StepDataset(Dataset[list[Batch]]):
    """Item s is this process's share of step s: `accumulation` parts of the global batch.

    Args:
        sampler: where crops come from.
        rank, world_size: this process among those that share the batch.
    """

    def __init__(self, sampler: CropSampler, rank: int = 0, world_size: int = 1) -> None:
        self.sampler = sampler
        self.rank, self.world_size = rank, world_size
        s = sampler.settings
        self.part = s.batch // (s.accumulation * world_size)
        if self.part * s.accumulation * world_size != s.batch:
            raise ValueError(
                f"batch ({s.batch}) must be a multiple of accumulation ({s.accumulation}) "
                f"times the number of processes ({world_size})"
            )

    def __getitem__(self, step: int) -> list[Batch]:
        s = self.sampler.settings
        starts = [(i * self.world_size + self.rank) * self.part for i in range(s.accumulation)]
        return [self.batch(step, range(start, start + self.part)) for start in starts]

    def batch(self, step: int, samples: range) -> Batch:
        """Samples of the global batch of a step."""
        s, corpus, seed = self.sampler.settings, self.sampler.corpus, self.sampler.seed
        patches = (s.n_mels // s.patch_mels) * (s.unit_frames // s.patch_frames)
        spectrogram = np.empty((len(samples), corpus.n_mels, s.unit_frames), dtype=np.float32)
        order = np.empty((len(samples), patches), dtype=np.int64)
        for i, sample in enumerate(samples):
            random = generator(seed, self.sampler.stream, step, sample)
            order[i] = random.permutation(patches)
            spectrogram[i] = self.sampler.crop(random)
        spectrogram -= np.float32(corpus.mean)
        spectrogram /= np.float32(corpus.std)
        return Batch(torch.from_numpy(spectrogram), torch.from_numpy(order))


def batches(
    dataset: StepDataset, start: int, stop: int, pin: bool = False
) -> Iterator[list[Batch]]:
    """This process's shares of steps start..stop, in order, read ahead by worker processes."""
    workers = dataset.sampler.settings.workers
    loader: DataLoader[list[Batch]] = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    return iter(loader)


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach workers too; the training process decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def split_order(order: Tensor, mask_ratio: float) -> Mask:
    """The mask of permutations (b, l): the first int(l * (1 - ratio)), at least 1, are visible."""
    patches = order.shape[1]
    return Mask.from_permutation(order, min(patches - 1, max(1, int(patches * (1 - mask_ratio)))))


def clip_weights(corpus: CorpusLike, source_weights: Mapping[str, float]) -> NDArray[np.float64]:
    """(c,) chance of each clip, not normalised: frames times the weight of the source.

    Raises:
        ValueError: a weight is given for a source that the corpus does not have.
    """
    known = set(corpus.clip_sources)
    if unknown := sorted(set(source_weights) - known):
        raise ValueError(
            f"source_weights names {unknown}, not in the corpus; its sources: {sorted(known)}"
        )
    factors = np.array([source_weights.get(name, 1.0) for name in corpus.clip_sources])
    return np.asarray(corpus.clip_frames, dtype=np.float64) * factors.reshape(-1)


def held_out_clips(clips: int, share: float, seed: int) -> NDArray[np.bool_]:
    """(c,) which clips are never trained on: a share of them; at least one, but never all."""
    count = min(max(round(clips * share), 1 if share > 0 else 0), max(clips - 1, 0))
    held = np.zeros(clips, dtype=bool)
    held[generator(seed, SPLIT, 0, 0).permutation(clips)[:count]] = True
    return held


def gain(log_mel: NDArray[np.float32], decibels: float) -> NDArray[np.float32]:
    """The log-mel spectrogram of the same audio, louder by so many dB."""
    factor = np.float32(10.0 ** (decibels / 10))
    power = np.maximum(np.exp(log_mel) - np.float32(LOG_EPS), 0)
    return np.log(power * factor + np.float32(LOG_EPS))


def mix(
    first: NDArray[np.float32], second: NDArray[np.float32], decibels: float
) -> NDArray[np.float32]:
    """The sum, in power, of the first and the second at so many dB."""
    factor = np.float32(10.0 ** (decibels / 10))
    power = np.maximum(np.exp(second) - np.float32(LOG_EPS), 0)
    return np.log(np.exp(first) + power * factor)
