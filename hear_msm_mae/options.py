"""Options of `load_model`, checked; the same names work in hear-eval-kit's --model-options."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .config import ModelConfig
from .timeline import valid_hops_ms

DEFAULT_HOP_MS = 40  # hear-validator warns above 50 ms
MODES = ("default", "paper")
PRECISIONS = ("float32", "bfloat16")
NORMALIZATIONS = ("stored", "batch")


@dataclasses.dataclass(frozen=True)
class Options:
    """Checked options of a loaded model; see `resolve_options` for their meaning."""

    mode: str
    precision: str
    normalization: str | tuple[float, float]
    timestamp_hop_ms: int
    layers: tuple[int, ...]
    scale: float
    """Factor of the embeddings, the one of the weights where they choose the layer."""


def resolve_options(config: ModelConfig, given: Mapping[str, Any]) -> Options:
    """Fill in defaults and check values.

    Args:
        config: the model's sizes.
        given: any of

            - mode: "default", or "paper" (batch statistics, whole-unit padding with the mean,
              uncentred timestamps: the published runtime).
            - timestamp_hop_ms: distance of timestamps; default 40, or the largest possible
              value below it.
            - normalization: "stored" statistics (the default), "batch" statistics (the default
              in paper mode), or a pair (mean, std).
            - precision: "float32" or "bfloat16" (weights and activations of the encoder).
            - layer: "last", an index of a block (negative: from the end), or a list of indices
              whose embeddings are concatenated. The default is what the configuration says, in
              the scale that it says, and the last in paper mode.

    Raises:
        ValueError: an unknown option or value; the message lists the valid ones.
    """
    known = ("timestamp_hop_ms", "normalization", "precision", "layer", "mode")
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"unknown option(s) {unknown}; valid options: {sorted(known)}")
    mode = _one_of("mode", given.get("mode", "default"), MODES)
    paper = mode == "paper"
    layer, scale = given.get("layer", "last"), 1.0
    if "layer" not in given and not paper:  # the weights choose
        layer = "last" if config.layer is None else config.layer
        scale = config.embedding_scale
    return Options(
        mode=mode,
        precision=_one_of("precision", given.get("precision", "float32"), PRECISIONS),
        normalization=_normalization(given.get("normalization", "batch" if paper else "stored")),
        timestamp_hop_ms=_hop(given.get("timestamp_hop_ms"), config, paper),
        layers=_layers(layer, config.depth),
        scale=scale,
    )


def _one_of(name: str, value: Any, valid: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{name} must be one of {list(valid)}, got {value!r}")
    return value


def _normalization(value: Any) -> str | tuple[float, float]:
    if isinstance(value, str) and value in NORMALIZATIONS:
        return value
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)):
        mean, std = float(value[0]), float(value[1])
        if math.isfinite(mean) and math.isfinite(std) and std > 0:
            return mean, std
    raise ValueError(
        f"normalization must be one of {list(NORMALIZATIONS)} or a pair (mean, std) of finite "
        f"numbers with std > 0, got {value!r}"
    )


def _hop(value: Any, config: ModelConfig, paper: bool) -> int:
    valid = [config.native_hop_ms] if paper else valid_hops_ms(config)
    if value is None:
        return max((hop for hop in valid if hop <= DEFAULT_HOP_MS), default=valid[0])
    if not _is_number(value) or value not in valid:
        where = " in paper mode" if paper else ""
        raise ValueError(
            f"timestamp_hop_ms of {config.name} must be one of {valid}{where}, got {value!r}"
        )
    return int(value)


def _layers(value: Any, depth: int) -> tuple[int, ...]:
    indices = (
        [-1] if value == "last" else list(value) if isinstance(value, (list, tuple)) else [value]
    )
    valid = all(type(index) is int and -depth <= index < depth for index in indices)
    if not indices or not valid:
        raise ValueError(
            f"layer must be 'last', an index from {-depth} to {depth - 1}, or a non-empty list of "
            f"such indices, got {value!r}"
        )
    return tuple(index % depth for index in indices)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
