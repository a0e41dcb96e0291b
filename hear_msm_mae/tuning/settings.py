"""Typed settings of a fine-tuning run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Everything that decides a run beside the weights and the recordings.

    Raises:
        ValueError: a value that makes no sense; the message names it.
    """

    blocks: int | None = None
    """How many blocks learn, counted down from the one that embeddings are read from; None: all of
    them, and what stands before them."""
    epochs: int = 30
    """Passes over the recordings, at most."""
    patience: int = 8
    """Epochs without improvement on the validation recordings, after which the run ends."""
    lr: float = 3e-4
    """Peak learning rate, that of the classifier."""
    layer_decay: float = 0.75
    """Factor of the learning rate from each block to the one below it (Clark et al. 2020)."""
    mixup: float = 0.2
    """Recordings are mixed in pairs, with their labels, by shares from Beta(mixup, mixup) (Zhang et
    al. 2018); 0 is off."""
    batch: int = 32
    """Crops per step; fewer where there are fewer recordings."""
    seconds: float = 5.0
    """Length of the crops; shorter recordings are taken as a whole."""
    warmup: float = 0.1
    """Share of the epochs in which the learning rate rises from 0; then half a cosine to 0."""
    weight_decay: float = 0.05
    """AdamW: weight decay of matrices."""
    clip_norm: float = 1.0
    """Largest norm of the gradient, longer ones are scaled down; 0 is off."""
    precision: str = "auto"
    """bf16 (autocast, weights stay float32), fp32, or auto: the faster one."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; 0: after each step."""
    seed: int = 0
    """Of the division of the recordings, the crops and the mixing."""

    # What a step asks for beside.
    accumulation = 1
    beta1 = 0.9
    beta2 = 0.999
    cuda_graph = False  # units of a batch have other lengths at each step

    def __post_init__(self) -> None:
        low = {"blocks": 1, "epochs": 1, "patience": 1, "batch": 1, "seed": 0}
        for name, least in low.items():
            value = getattr(self, name)
            if value is None and name == "blocks":
                continue
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name in ("lr", "layer_decay", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("mixup", "weight_decay", "clip_norm", "checkpoint_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.layer_decay > 1 or not 0 <= self.warmup < 1:
            raise ValueError(
                "expected layer_decay of at most 1 and warmup from 0 to below 1, got "
                f"{self.layer_decay} and {self.warmup}"
            )
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision must be auto, bf16 or fp32, got {self.precision!r}")

    def to_dict(self) -> dict[str, Any]:
        """All settings by name."""
        return dataclasses.asdict(self)


# Settings that may change when a run continues: they do not change what is learnt.
CHANGEABLE = frozenset({"checkpoint_minutes"})
NAMES = tuple(field.name for field in dataclasses.fields(Tuning))
