"""Typed settings of a pretraining run, read from YAML recipes and key=value overrides."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..config import ModelConfig
from .typed_yaml import coerce, parse_mapping, with_overrides

# Encoder sizes: width, depth, heads.
SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}  # our names -> Lightning Fabric's
SECONDS_PER_EPOCH_CROP = 10.0  # an AudioSet clip: the paper takes one crop of each per epoch
REFERENCE_BATCH = 128  # the learning rate is base_lr * batch / 128

# Settings that watch or place a run and may change when it is resumed. Everything else decides
# what is computed. The corpus is compared by content, not by path.
CHANGEABLE = frozenset(
    {
        *("corpus", "run_dir", "init_from", "workers", "devices", "nodes", "accelerator"),
        *("checkpoint_minutes", "checkpoint_steps", "keep_last", "log_steps", "pictures"),
        *("holdout_crops", "probe", "max_bad_steps"),
    }
)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a pretraining run.

    Raises:
        ValueError: an impossible value; the message names the setting.
    """

    # -- places --------------------------------------------------------------------------------
    corpus: str = "corpus"
    """Folder written by `hear-msm-mae prepare`."""
    run_dir: str = "run"
    """Folder for checkpoints, curves and pictures; an existing run there is resumed."""
    init_from: str | None = None
    """Weights (.safetensors) to start from instead of random ones."""

    # -- model ---------------------------------------------------------------------------------
    size: str = "base"
    """Encoder: tiny (192 x 12), small (384 x 12), base (768 x 12) or large (1024 x 24)."""
    width: int | None = None
    """Encoder channels, instead of the size's."""
    depth: int | None = None
    """Encoder blocks, instead of the size's."""
    heads: int | None = None
    """Encoder attention heads, instead of the size's."""
    n_mels: int = 80
    """Mel bins; the corpus must have been prepared with as many."""
    unit_frames: int = 208
    """Input unit and length of the training crops, in 10 ms frames."""
    patch_mels: int = 16
    """Patch height in mel bins."""
    patch_frames: int = 16
    """Patch width in frames."""
    cls_token: bool = True
    """Whether a CLS token is put before the patch tokens."""
    mlp_ratio: float = 4.0
    """Hidden size of the blocks' MLP relative to the width."""
    decoder_width: int = 384
    """Decoder channels."""
    decoder_depth: int = 4
    """Decoder blocks."""
    decoder_heads: int = 6
    """Decoder attention heads."""
    decoder_positions: str = "1d"
    """Decoder position table: 1d sinusoids over the token index or 2d sin-cos."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden, uniformly at random."""
    norm_pixels: bool = False
    """Targets normalised per patch to mean 0 and variance 1."""

    # -- data ----------------------------------------------------------------------------------
    source_weights: dict[str, float] = field(default_factory=dict)
    """Factor per source folder on its share of the crops; 1 where not named, 0 leaves out."""
    gain_db: float = 0.0
    """Random gain of each crop, uniform in +- this many dB; 0 is off."""
    mix: float = 0.0
    """Share of the crops to which a second, randomly quieter crop is added (in power)."""
    holdout: float = 0.01
    """Share of the clips that is never trained on and serves for the held-out loss."""
    workers: int = 0
    """Data-loading processes per rank; 0 reads in the training process."""

    # -- optimisation --------------------------------------------------------------------------
    steps: int | None = None
    """Length of the run in optimiser steps; give one of steps, samples, epochs."""
    samples: int | None = None
    """Length of the run in crops."""
    epochs: float | None = None
    """Length of the run in epochs of one crop per 10 s of audio (an AudioSet clip)."""
    batch: int = 128
    """Crops per optimiser step, over all processes and accumulation steps."""
    accumulation: int = 1
    """Parts that each process computes its share of the batch in (saves memory)."""
    base_lr: float = 1.5e-4
    """Peak learning rate per 128 crops: lr = base_lr * batch / 128."""
    warmup: float = 0.1
    """Share of the run in which the learning rate rises from 0; then cosine to 0."""
    beta1: float = 0.9
    """AdamW: decay of the mean of the gradients."""
    beta2: float = 0.95
    """AdamW: decay of the mean of their squares."""
    weight_decay: float = 0.05
    """AdamW: weight decay of matrices; biases, norms and tokens have none."""
    clip_norm: float = 1.0
    """Largest norm of the gradient, longer ones are scaled down; 0 is off."""
    max_bad_steps: int = 20
    """Steps with NaN/Inf loss or gradient in a row after which the run stops."""
    seed: int = 0
    """Seed of the initial weights, the hold-out, and the crops and masks."""
    data_seed: int | None = None
    """Seed of the training crops and masks instead of `seed`. A run with `init_from` needs one
    that the runs before did not use, or it sees their crops again. The hold-out stays, as long as
    the corpus does."""

    # -- engine --------------------------------------------------------------------------------
    precision: str = "auto"
    """bf16 (autocast, weights stay float32), fp32, or auto: what is the faster where the run
    begins, and stays when it is resumed."""
    compile: bool = False
    """Whether torch.compile is used (minutes at the start, needs a C++ compiler)."""
    accelerator: str = "auto"
    """Lightning Fabric accelerator: auto, cpu, cuda or mps."""
    devices: str = "auto"
    """Processes per node when not launched by torchrun; on the CPU auto means 1."""
    nodes: int = 1
    """Nodes when not launched by torchrun."""

    # -- watching ------------------------------------------------------------------------------
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints; 0 is off."""
    checkpoint_steps: int = 0
    """Steps between checkpoints; 0 is off."""
    keep_last: int = 3
    """Checkpoints kept."""
    log_steps: int = 10
    """Steps between TensorBoard points."""
    pictures: int = 4
    """Clips in the reconstruction picture drawn at each checkpoint; 0 is off."""
    holdout_crops: int = 256
    """Crops of held-out clips on which the loss is computed at each checkpoint; 0 is off."""
    probe: str | None = None
    """Folder of labelled audio, one sub-folder per label, for a linear probe at checkpoints."""

    def __post_init__(self) -> None:
        _check(self)

    def model_config(self, mean: float | None = None, std: float | None = None) -> ModelConfig:
        """The model's configuration, with the statistics of a corpus when given.

        Raises:
            ValueError: sizes that do not fit together; the message names them.
        """
        width, depth, heads = SIZES[self.size]
        names = {f.name for f in dataclasses.fields(ModelConfig)}
        values = {k: v for k, v in vars(self).items() if k in names and v is not None}
        values = {"width": width, "depth": depth, "heads": heads} | values
        if mean is not None and std is not None:
            values |= {"norm_mean": float(mean), "norm_std": float(std)}
        return ModelConfig(**values)

    def total_steps(self, hours: float) -> int:
        """Optimiser steps of the run on a corpus of so many hours."""
        if self.steps is not None:
            return self.steps
        crops = float(self.samples or 0)
        if self.epochs is not None:
            crops = self.epochs * hours * 3600 / SECONDS_PER_EPOCH_CROP
        return max(1, math.ceil(crops / self.batch))

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of a step (0 is the first): linear warm-up, then half a cosine to 0."""
        peak = self.base_lr * self.batch / REFERENCE_BATCH
        warmup = self.warmup * total
        if step < warmup:
            return peak * min(1.0, (step + 1) / warmup)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    def to_yaml(self) -> str:
        """The settings as YAML that `load_recipe` reads."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files(__package__) / "recipes"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings of a recipe, changed by `key=value` texts.

    Args:
        path_or_name: a YAML file, or the name of a shipped recipe (`recipe_names`).
        overrides: e.g. ["batch=64", "norm_pixels=true", "source_weights.music=0.5"].

    Raises:
        FileNotFoundError: neither a file nor a shipped recipe.
        ValueError: an unknown key or a wrong value; the message names it.
    """
    path = Path(path_or_name)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif str(path_or_name) in recipe_names():
        recipe = resources.files(__package__) / "recipes" / f"{path_or_name}.yaml"
        text = recipe.read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(
            f"no recipe file {path_or_name}; shipped recipes: {', '.join(recipe_names())}"
        )
    return from_dict(with_overrides(parse_mapping(text, f"recipe {path_or_name}"), overrides))


def from_dict(values: dict[str, Any]) -> Settings:
    """Settings from plain values, with their types checked.

    Raises:
        ValueError: an unknown key or a value of the wrong type; the message names it.
    """
    hints = typing.get_type_hints(Settings)
    if unknown := sorted(map(str, set(values) - set(hints))):
        raise ValueError(f"unknown setting(s) {unknown}; known: {', '.join(hints)}")
    return Settings(**{key: coerce(key, value, hints[key]) for key, value in values.items()})


def _check(s: Settings) -> None:
    """Raise ValueError for the first impossible setting."""

    def require(good: bool, name: str, rule: str) -> None:
        if not good:
            raise ValueError(f"{name} must be {rule}, got {getattr(s, name)!r}")

    require(s.size in SIZES, "size", f"one of {', '.join(SIZES)}")
    precisions = ("auto", *PRECISIONS)
    require(s.precision in precisions, "precision", f"one of {', '.join(precisions)}")
    require(s.data_seed is None or s.data_seed >= 0, "data_seed", "null or not negative")
    require(0 < s.mask_ratio < 1, "mask_ratio", "between 0 and 1, exclusive")
    require(0 <= s.holdout < 1, "holdout", "at least 0 and below 1")
    require(0 <= s.warmup < 1, "warmup", "at least 0 and below 1")
    require(0 <= s.mix <= 1, "mix", "between 0 and 1")
    require(0 <= s.beta1 < 1, "beta1", "at least 0 and below 1")
    require(0 <= s.beta2 < 1, "beta2", "at least 0 and below 1")
    for name in ("batch", "accumulation", "keep_last", "log_steps", "max_bad_steps", "nodes"):
        require(getattr(s, name) >= 1, name, "at least 1")
    for name in (
        *("gain_db", "base_lr", "weight_decay", "clip_norm", "checkpoint_minutes"),
        *("checkpoint_steps", "pictures", "holdout_crops", "workers", "seed"),
    ):
        require(0 <= getattr(s, name) < math.inf, name, "finite and not negative")
    for name in ("steps", "samples", "epochs"):
        require(getattr(s, name) is None or getattr(s, name) > 0, name, "positive")
    if sum(v is not None for v in (s.steps, s.samples, s.epochs)) != 1:
        raise ValueError(
            "give exactly one of steps, samples, epochs (set the others to null), got "
            f"steps={s.steps}, samples={s.samples}, epochs={s.epochs}"
        )
    if any(not 0 <= w < math.inf for w in s.source_weights.values()):
        raise ValueError(f"source_weights must not be negative, got {s.source_weights}")
    if s.batch % s.accumulation:
        raise ValueError(f"batch ({s.batch}) must be a multiple of accumulation ({s.accumulation})")
    s.model_config()
    patches = (s.n_mels // s.patch_mels) * (s.unit_frames // s.patch_frames)
    if patches < 2:
        raise ValueError(
            f"a unit of {s.n_mels}x{s.unit_frames} with patches of {s.patch_mels}x"
            f"{s.patch_frames} has one patch; choose smaller patch_mels or patch_frames"
        )
