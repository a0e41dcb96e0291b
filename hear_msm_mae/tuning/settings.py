"""Settings and result of a fine-tuning run."""

from __future__ import annotations

import dataclasses
import math

from ..answers.evaluate import ProbeResult, Score

PAGE = "finetune.html"
_INTEGERS = {"blocks": 1, "epochs": 1, "patience": 1, "batch": 1, "seed": 0}  # and their minimum
_POSITIVE = ("lr", "layer_decay", "seconds")
_AT_LEAST_0 = ("mixup", "weight_decay", "clip_norm", "checkpoint_minutes")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Settings of a fine-tuning run.

    Raises:
        ValueError: a value is impossible; the message names it.
    """

    blocks: int | None = None
    """Number of blocks that are trained, down from the one whose output is the embedding. None
    trains all of them and the patch embedding."""
    epochs: int = 30
    """Maximum number of epochs."""
    patience: int = 8
    """The run ends after so many epochs without improvement on the validation recordings."""
    lr: float = 3e-4
    """Peak learning rate of the classifier."""
    layer_decay: float = 0.75
    """Learning rate of a block relative to the block above it (Clark et al. 2020)."""
    mixup: float = 0.2
    """Parameter of the Beta distribution for mixup of crops and labels (Zhang et al. 2018); 0 turns
    it off."""
    batch: int = 32
    """Crops per step; fewer if there are fewer recordings."""
    seconds: float = 5.0
    """Length of the crops; shorter recordings are used as a whole."""
    warmup: float = 0.1
    """Share of the epochs in which the learning rate rises from 0; then half a cosine to 0."""
    weight_decay: float = 0.05
    """AdamW: weight decay of matrices."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; 0 turns clipping off."""
    precision: str = "auto"
    """bf16 (autocast, weights stay float32), fp32, or auto: the faster one."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; 0 writes one after each step."""
    seed: int = 0
    """Random seed of the splits, the crops and mixup."""

    # Fixed settings that a step of `pretrain` needs.
    beta1 = 0.9
    beta2 = 0.999
    cuda_graph = False  # lengths of units differ from step to step

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = _INTEGERS.get(name)
            if name == "blocks" and value is None:
                continue
            if least is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
            if name in _POSITIVE and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
            if name in _AT_LEAST_0 and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if self.layer_decay > 1 or not 0 <= self.warmup < 1:
            raise ValueError(
                "expected layer_decay of at most 1 and warmup from 0 to below 1, got "
                f"{self.layer_decay} and {self.warmup}"
            )
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision must be auto, bf16 or fp32, got {self.precision!r}")


@dataclasses.dataclass
class FinetuneResult(ProbeResult):
    """The result of `finetune`; `scores` has the fine-tuned classifier first, then the probe.

    Attributes:
        curve: score of the validation recordings by epoch.
        best_epoch: epoch whose weights were kept; 0 means the original encoder with the probe.
        gain: score of the fine-tuned classifier minus that of the probe.
    """

    best_epoch: int
    gain: Score

    @property
    def comparison(self) -> str:
        """The gain and the best epoch in words."""
        name, value, low, high = self.gain
        return (
            f"fine-tuned - probe: {name} {value:+.3f} ({low:+.3f} to {high:+.3f}), epoch "
            f"{self.best_epoch}"
        )
