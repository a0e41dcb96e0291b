"""Crops of the log-mel spectrograms of labelled recordings, as a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..answers.features import log_mel_of
from ..config import MS_PER_FRAME
from ..embed.cutting import Resume, cut, make_plan
from ..embed.sources import Recording
from ..files import available_cpus
from ..log_mel import SILENCE
from ..model import HearModel
from .settings import Tuning

# Independent streams of random numbers under one seed.
_ORDER, _CROPS = range(2)


class Batch(NamedTuple):
    """Crops of a step, and their partners for mixup."""

    frames: Tensor  # (b, t, f) float16 log-mel, not normalised or mixed; silence at the end
    lengths: Tensor  # (b,) int64, frames of each crop
    partners: Tensor  # (b,) int64, index of the crop that is mixed into each crop
    shares: Tensor  # (b,) float32, share of the crop itself
    targets: Tensor  # (b, c) float32, 1 for each label of the crop

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply a function to each tensor."""
        return Batch(*map(function, self))


def spectrograms(
    recordings: Sequence[Recording], model: HearModel, workers: int | None = None
) -> list[NDArray[np.float16]]:
    """Log-mel spectrograms (t, f), not normalised: 58 MB per hour at 80 mel bands.

    Raises:
        OSError, ValueError: a recording can no longer be read.
    """
    plan = make_plan(model, timestamps=False)

    @torch.inference_mode()
    def spectrogram(recording: Recording) -> NDArray[np.float16]:
        pieces = (piece for _, piece in cut(recording, plan, Resume(0, 0)))
        return np.concatenate([log_mel_of(model, piece).T.half().numpy() for piece in pieces])

    with ThreadPoolExecutor(workers or min(16, available_cpus())) as pool:
        return list(pool.map(spectrogram, recordings))


class Crops:
    """Draws the batch of each step, without a state between steps.

    Each epoch has one crop of every recording, or the whole recording if it is shorter. Short
    recordings are neither repeated nor padded beyond whole patches, because that would change
    their embeddings.

    Args:
        frames: n spectrograms (t, f).
        targets: (n, c) booleans: whether a recording has a label.
        settings: length of the crops, batch size, mixup and seed.
    """

    def __init__(
        self, frames: list[NDArray[np.float16]], targets: NDArray[np.bool_], settings: Tuning
    ) -> None:
        self.frames, self.targets, self.settings = frames, targets.astype(np.float32), settings
        self.most = max(1, round(settings.seconds * 1000 / MS_PER_FRAME))  # frames of a crop
        self.batch = min(settings.batch, len(targets))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.targets) // self.batch)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the CPU."""
        s, b = self.settings, self.batch
        epoch, inside = divmod(step, self.steps)
        order = np.random.default_rng([s.seed, _ORDER, epoch]).permutation(len(self.targets))
        chosen = order.take(np.arange(inside * b, (inside + 1) * b), mode="wrap")
        generator = np.random.default_rng([s.seed, _CROPS, step])
        totals = np.array([len(self.frames[i]) for i in chosen])
        lengths = np.minimum(totals, self.most)
        starts = generator.integers(0, totals - lengths + 1)
        shape = (b, int(lengths.max()), self.frames[0].shape[1])
        values = np.full(shape, SILENCE, np.float16)  # (b, t, f)
        for crop, i, start, length in zip(values, chosen, starts, lengths, strict=True):
            crop[:length] = self.frames[i][start : start + length]
        shares = generator.beta(s.mixup, s.mixup, b) if s.mixup else np.ones(b)
        return Batch(
            torch.from_numpy(values),
            torch.from_numpy(lengths),
            torch.from_numpy(generator.permutation(b)),
            torch.from_numpy(shares.astype(np.float32)),
            torch.from_numpy(self.targets[chosen]),
        )
