"""Typed settings of a pretraining run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)

from ..config import ModelConfig

# Encoder sizes: width, depth, heads.
SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
SECONDS_PER_EPOCH_CROP = 10.0  # an AudioSet clip: the paper takes one crop of each per epoch
REFERENCE_BATCH = 128  # the learning rate is base_lr * batch / 128

# Settings of hardware and reports, which may change when a run is resumed. All others change the
# results. The corpus is compared by content, not by path.
CHANGEABLE = frozenset(
    {
        *("corpus", "run_dir", "init_from", "devices", "nodes", "accelerator", "bank"),
        *("checkpoint_minutes", "checkpoint_steps", "keep_last", "log_steps", "pictures"),
        *("holdout_crops", "probe", "max_bad_steps", "teacher", "compile", "cuda_graph"),
    }
)
# Fields of ModelConfig that pretraining does not choose.
LATER = {"norm_mean", "norm_std", "layer", "embedding_scale", "scene_pooling"}
MODEL_KEYS = [f.name for f in dataclasses.fields(ModelConfig) if f.name not in LATER]


@dataclass(frozen=True)
class Settings:
    """Settings of a pretraining run; made by `load_recipe` or `from_dict`.

    Raises:
        ValueError: settings contradict each other; the message names them.
    """

    # -- places --------------------------------------------------------------------------------
    corpus: str = "corpus"
    """Folder written by `hear-msm-mae prepare`."""
    run_dir: str = "run"
    """Folder for checkpoints, curves and pictures; an existing run there is resumed."""
    init_from: str | None = None
    """Weights (.safetensors) to start from instead of random ones. With objective=latents only the
    encoder is taken from them."""

    # -- model ---------------------------------------------------------------------------------
    size: Literal["tiny", "small", "base", "large"] = "base"
    """Size of the encoder, width x depth: tiny (192 x 12), small (384 x 12), base (768 x 12) or
    large (1024 x 24). `width`, `depth` and `heads` change it."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model, from the settings with the names of its fields."""
    norm_mean: float | None = None
    """Mean that is subtracted from the log-mel values; null: that of the corpus."""
    norm_std: PositiveFloat | None = None
    """Standard deviation that divides the log-mel values; null: that of the corpus."""

    # -- objective -----------------------------------------------------------------------------
    objective: Literal["pixels", "latents"] = "pixels"
    """Targets of the masked patches: their values (pixels), or a teacher's embeddings (latents)."""
    teacher: str | None = None
    """Latents: weights of the teacher, whose frozen encoder sees the whole spectrogram. Targets are
    the mean over its blocks, each normalised by `target_norm`, then normalised per token."""
    target_norm: Literal["clip", "batch"] = "clip"
    """Latents: patches over which each channel is normalised: of the clip, as in data2vec, or of
    the batch, which keeps in the targets what is the same throughout a clip."""
    pixel_weight: NonNegativeFloat = 0.0
    """Latents: weight of an additional loss on the patch values."""
    pooled_weight: NonNegativeFloat = 0.0
    """Latents: weight of an additional loss on the mean of the targets over all patches, which is
    predicted from the mean embedding of the visible patches."""
    mask_ratio: OpenUnitInterval = 0.75
    """Share of the patches that is masked, uniformly at random."""
    masks: PositiveInt = 1
    """Masks for each crop; `batch` counts each mask as a sample. The teacher sees a crop once."""

    # -- data ----------------------------------------------------------------------------------
    source_weights: dict[str, NonNegativeFloat] = field(default_factory=dict)
    """Weight of each source folder in the choice of crops; the default is 1, and 0 excludes it."""
    gain_db: NonNegativeFloat = 0.0
    """Random gain of each crop, uniform in +- this many dB; 0 turns it off."""
    tilt_db: NonNegativeFloat = 0.0
    """Random slope of each crop's spectrum: uniform in +- this many dB at the highest mel bin and
    the opposite at the lowest; 0 turns it off."""
    mix: ClosedUnitInterval = 0.0
    """Share of the crops to which a second, randomly quieter crop is added (in power)."""
    reverb: ClosedUnitInterval = 0.0
    """Share of the crops that get the reverberation of a random room, see `augmentation.py`."""
    procedural: ClosedUnitInterval = 0.0
    """Share of the crops that are replaced by random sounds made of formulas, not of recordings."""
    holdout: ClosedUnitInterval = 0.01
    """Share of the clips that is held out of training for the held-out loss."""
    bank: Literal["auto", "device", "host"] = "auto"
    """Location of the corpus: the GPU's memory (device), memory-mapped on the host, or device if it
    fits (auto)."""

    # -- optimisation --------------------------------------------------------------------------
    steps: PositiveInt | None = None
    """Length of the run in optimiser steps; set one of steps, samples, epochs, minutes."""
    samples: PositiveInt | None = None
    """Length of the run in samples (crops times `masks`)."""
    epochs: PositiveFloat | None = None
    """Length of the run in epochs of one crop per 10 s of audio (an AudioSet clip)."""
    minutes: PositiveFloat | None = None
    """Length of the run in minutes, which the learning rate follows; only with one process."""
    batch: PositiveInt = 128
    """Samples per optimiser step, over all processes and accumulation steps."""
    accumulation: PositiveInt = 1
    """Parts in which each process computes its share of the batch; more parts need less memory."""
    base_lr: NonNegativeFloat = 1.5e-4
    """Peak learning rate per 128 samples: lr = base_lr * batch / 128."""
    warmup: ClosedUnitInterval = 0.1
    """Share of the run in which the learning rate rises from 0; then cosine to 0."""
    beta1: ClosedUnitInterval = 0.9
    """AdamW: decay of the mean of the gradients."""
    beta2: ClosedUnitInterval = 0.95
    """AdamW: decay of the mean of the squared gradients."""
    weight_decay: NonNegativeFloat = 0.05
    """AdamW: weight decay of matrices; biases, norms and tokens have none."""
    clip_norm: NonNegativeFloat = 1.0
    """Maximum norm of the gradient; 0 turns clipping off."""
    max_bad_steps: PositiveInt = 20
    """The run stops after so many consecutive steps with NaN/Inf loss or gradient."""
    seed: NonNegativeInt = 0
    """Seed of the initial weights, the hold-out, and the crops and masks."""
    data_seed: NonNegativeInt | None = None
    """Seed of the training crops and masks; null: `seed`. A run with `init_from` needs a new one,
    otherwise it sees the crops of the earlier run again. The held-out clips do not depend on it."""

    # -- hardware ------------------------------------------------------------------------------
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 (autocast with float32 weights), fp32, or auto (the faster one). A resumed run keeps its
    precision."""
    compile: bool | None = None
    """Whether the blocks are compiled, which needs a C++ compiler; null: only on a GPU."""
    cuda_graph: bool | None = None
    """Whether a step is replayed as one CUDA graph; null: only on a single GPU."""
    accelerator: str = "auto"
    """Lightning Fabric accelerator: auto, cpu, cuda or mps."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """Processes per node when not launched by torchrun; on the CPU auto means 1."""
    nodes: PositiveInt = 1
    """Nodes when not launched by torchrun."""

    # -- watching ------------------------------------------------------------------------------
    checkpoint_minutes: NonNegativeFloat = 10.0
    """Minutes between checkpoints; 0 turns them off."""
    checkpoint_steps: NonNegativeInt = 0
    """Steps between checkpoints; 0 turns them off."""
    keep_last: PositiveInt = 3
    """Number of checkpoints that are kept."""
    log_steps: PositiveInt = 10
    """Steps between TensorBoard points. Loss, norm and bad steps are checked only then."""
    pictures: NonNegativeInt = 4
    """Clips in the reconstruction picture of each checkpoint; 0 turns it off."""
    holdout_crops: NonNegativeInt = 256
    """Held-out crops on which the loss is computed at each checkpoint; 0 turns it off."""
    probe: str | None = None
    """Folder of labelled audio, one sub-folder per label, for a linear probe at checkpoints."""

    def __post_init__(self) -> None:
        _check(self)

    def model_config(self, mean: float, std: float) -> ModelConfig:
        """The model's configuration, with the statistics of the settings or of the corpus."""
        return dataclasses.replace(
            self.model,
            norm_mean=float(mean if self.norm_mean is None else self.norm_mean),
            norm_std=float(std if self.norm_std is None else self.norm_std),
        )

    def total_steps(self, hours: float) -> int | None:
        """Optimiser steps of the run on a corpus of `hours`; None if `minutes` is set."""
        if self.minutes is not None:
            return None
        if self.steps is not None:
            return self.steps
        samples = float(self.samples or 0)
        if self.epochs is not None:
            samples = self.epochs * hours * 3600 / SECONDS_PER_EPOCH_CROP
        return max(1, math.ceil(samples / self.batch))

    def lr_at(self, position: float, length: float, step: float = 1.0) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine to 0.

        Args:
            position: number of earlier steps, or time since the start.
            length: length of the run, in the same unit.
            step: length of a step, in the same unit.
        """
        peak = self.base_lr * self.batch / REFERENCE_BATCH
        return peak * warmed_cosine(position, length, self.warmup * length, step)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, including those of the model, for `from_dict`."""
        values = dataclasses.asdict(self)
        sizes = values.pop("model")
        return values | {key: sizes[key] for key in MODEL_KEYS}

    def to_yaml(self) -> str:
        """The settings as YAML that `load_recipe` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def warmed_cosine(position: float, length: float, warmup: float, step: float = 1.0) -> float:
    """Factor of the peak learning rate; all arguments in one unit, see `Settings.lr_at`."""
    if position < warmup:
        return min(1.0, (position + step) / warmup)
    done = min(1.0, (position - warmup) / (length - warmup))
    return 0.5 * (1 + math.cos(math.pi * done))


def _check(s: Settings) -> None:
    """Raise ValueError if a setting is wrong or contradicts another."""
    for name, value in vars(s).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    for name in ("holdout", "warmup", "beta1", "beta2"):
        if getattr(s, name) >= 1:
            raise ValueError(f"{name} must be below 1, got {getattr(s, name)}")
    lengths = {name: getattr(s, name) for name in ("steps", "samples", "epochs", "minutes")}
    if sum(value is not None for value in lengths.values()) != 1:
        raise ValueError(
            f"set exactly one of {', '.join(lengths)} (and the others to null), got "
            + ", ".join(f"{name}={value}" for name, value in lengths.items())
        )
    if s.batch % (s.accumulation * s.masks):
        raise ValueError(
            f"batch ({s.batch}) must be a multiple of accumulation ({s.accumulation}) times masks "
            f"({s.masks})"
        )
    if (s.objective == "latents") != (s.teacher is not None):
        raise ValueError(
            f"objective={s.objective} and teacher={s.teacher}: set teacher for latents only"
        )
    m = s.model
    if m.rows * m.columns < 2:
        raise ValueError(
            f"a unit of {m.n_mels}x{m.unit_frames} with patches of {m.patch_mels}x"
            f"{m.patch_frames} has one patch; choose smaller patch_mels or patch_frames"
        )
