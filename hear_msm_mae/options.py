"""Options of `load_model`, checked; the same names work in hear-eval-kit's --model-options."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .config import SCENE_POOLINGS, ModelConfig
from .timeline import valid_hops_ms

DEFAULT_HOP_MS = 40  # hear-validator warns above 50 ms
MODES = ("default", "paper", "m2d")
PRECISIONS = ("float32", "bfloat16", "auto")
NORMALIZATIONS = ("stored", "batch")


@dataclasses.dataclass(frozen=True)
class Options:
    """Checked options of a loaded model; see `load_model` for their meaning."""

    mode: str
    precision: str
    normalization: str | tuple[float, float]
    timestamp_hop_ms: int
    layers: tuple[int, ...]
    scene_pooling: str
    scale: float
    """Factor of the embeddings, the one of the weights where they choose the layer."""


def resolve_options(
    config: ModelConfig, given: Mapping[str, Any], device: torch.device | str = "cpu"
) -> Options:
    """Fill in defaults and check values.

    Args:
        config: the model's sizes.
        given: keyword arguments of `hear_msm_mae.load_model`; None means the default.
        device: the device for which precision "auto" is resolved.

    Raises:
        ValueError: an option or value is unknown; the message lists the valid ones.
    """
    known = ("timestamp_hop_ms", "normalization", "precision", "layer", "scene_pooling", "mode")
    if unknown := sorted(set(given) - set(known)):
        valid = sorted((*known, "device"))
        raise ValueError(f"unknown option(s) {unknown}; valid options: {valid}")
    given = {name: value for name, value in given.items() if value is not None}
    mode = _one_of("mode", given.get("mode", "default"), MODES)
    published = mode != "default"  # a published runtime has no other choice
    layer, scale = given.get("layer", "last"), 1.0
    if "layer" not in given and not published:  # the weights choose
        layer = "last" if config.layer is None else config.layer
        scale = config.embedding_scale
    poolings = SCENE_POOLINGS[:1] if published else SCENE_POOLINGS
    pooling = given.get("scene_pooling", "mean" if published else config.scene_pooling)
    normalization = given.get("normalization", "batch" if mode == "paper" else "stored")
    precision = _one_of("precision", given.get("precision", "float32"), PRECISIONS)
    return Options(
        mode=mode,
        precision=native_precision(device) if precision == "auto" else precision,
        normalization=_normalization(normalization),
        timestamp_hop_ms=_hop(given.get("timestamp_hop_ms"), config, mode),
        layers=_layers(layer, config.depth),
        scene_pooling=_one_of("scene_pooling", pooling, poolings),
        scale=scale,
    )


def native_precision(device: torch.device | str) -> str:
    """The name "bfloat16" if the device has instructions for it, else "float32".

    CUDA devices have them from Ampere on, and CPUs with AMX or AVX512-BF16.
    """
    device = torch.device(device)
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        native = native and (
            torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        )
    return "bfloat16" if native else "float32"


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


def _hop(value: Any, config: ModelConfig, mode: str) -> int:
    valid = valid_hops_ms(config) if mode == "default" else [config.native_hop_ms]
    if value is None:
        return max((hop for hop in valid if hop <= DEFAULT_HOP_MS), default=valid[0])
    if not _is_number(value) or value not in valid:
        where = "" if mode == "default" else f" in {mode} mode"
        raise ValueError(
            f"timestamp_hop_ms of {config.name} must be one of {valid}{where}, got {value!r}"
        )
    return int(value)


def _layers(value: Any, depth: int) -> tuple[int, ...]:
    last = isinstance(value, str) and value == "last"
    indices = [-1] if last else list(value) if isinstance(value, (list, tuple)) else [value]
    valid = all(type(index) is int and -depth <= index < depth for index in indices)
    if not indices or not valid:
        raise ValueError(
            f"layer must be 'last', an index from {-depth} to {depth - 1}, or a non-empty list of "
            f"such indices, got {value!r}"
        )
    return tuple(index % depth for index in indices)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
