"""Sizes of a model from the tensors of another implementation's checkpoint (see convert.py)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig, parse_name
from ..encoder import sincos_1d, sincos_2d

HEAD_WIDTH = 64  # channels per attention head in this model family; tensors do not tell
TABLE_TOLERANCE = 2e-3  # position tables may have been stored in float16


def infer_config(
    state: Mapping[str, Tensor], name: str | None, mean: float, std: float
) -> ModelConfig:
    """Configuration of the encoder in a state dictionary with the reference's names.

    Raises:
        ValueError: a tensor is missing or misshapen, or `name` is needed for the unit size.
    """
    try:
        patch = state["patch_embed.proj.weight"]
        width = state["norm.weight"].shape[0]
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        sizes: dict[str, Any] = {
            "patch_mels": patch.shape[2],
            "patch_frames": patch.shape[3],
            "width": width,
            "depth": count_blocks(state, "blocks."),
            "heads": heads_of(width),
            # Not a hair below, where it would lose a channel in being multiplied with the width.
            "mlp_ratio": _ratio(hidden, width),
            "cls_token": "cls_token" in state,
        }
    except KeyError as error:
        raise ValueError(f"not an MSM-MAE checkpoint: {error} is missing") from error
    except IndexError as error:
        raise ValueError(
            "not an MSM-MAE checkpoint: patch_embed.proj.weight, norm.weight or "
            "blocks.0.mlp.fc1.weight is misshapen"
        ) from error
    sizes |= _unit_size(state, sizes, name)
    return ModelConfig(**sizes, norm_mean=mean, norm_std=std)


def _unit_size(
    state: Mapping[str, Tensor], sizes: Mapping[str, Any], name: str | None
) -> dict[str, int]:
    """Mel bins and frames of a unit, from the position table or, without one, from the name."""
    p_f, p_t, width = sizes["patch_mels"], sizes["patch_frames"], sizes["width"]
    if "pos_embed" in state:
        table = state["pos_embed"]
        patches = table.numel() // width - int(sizes["cls_token"])
        for rows in (r for r in range(1, patches + 1) if patches % r == 0):
            expected = sincos_2d(rows, patches // rows, width).flatten(0, 1)
            if _is_table(table, expected):
                return {"n_mels": rows * p_f, "unit_frames": patches // rows * p_t}
        raise ValueError(
            "pos_embed is not a fixed 2-D sin-cos table; trained tables are not supported"
        )
    named = parse_name(name) if name else None
    if named is None or (named["patch_mels"], named["patch_frames"]) != (p_f, p_t):
        raise ValueError(
            "the tensors leave the unit size open; give the model name, e.g. --name "
            f"80x208p{p_f}x{p_t}"
        )
    return {"n_mels": named["n_mels"], "unit_frames": named["unit_frames"]}


def heads_of(width: int) -> int:
    """Attention heads of a width.

    Raises:
        ValueError: the width is not a multiple of `HEAD_WIDTH`.
    """
    if width % HEAD_WIDTH:
        raise ValueError(
            f"cannot tell the number of heads: the width {width} is not a multiple of {HEAD_WIDTH}"
        )
    return width // HEAD_WIDTH


def _ratio(hidden: int, width: int) -> float:
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks below a prefix such as "blocks."."""
    indices = [re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state]
    return 1 + max((int(found[1]) for found in indices if found), default=0)


def decoder_positions_of(state: Mapping[str, Tensor], config: ModelConfig, width: int) -> str:
    """Which of the fixed tables the decoder has; tables are recomputed, so others must not pass."""
    table = state.get("decoder_pos_embed")
    if table is None:
        return "1d"
    rows, columns = config.rows, config.columns
    sines_cosines = sincos_1d(torch.arange(rows * columns), width).float()
    interleaved = sines_cosines.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
    if _is_table(table, interleaved):
        return "1d"
    if _is_table(table, sincos_2d(rows, columns, width).flatten(0, 1)):
        return "2d"
    raise ValueError("decoder_pos_embed is not a fixed sinusoid table")


def _is_table(table: Tensor, expected: Tensor) -> bool:
    """Whether the last rows are the expected ones; a row before them belongs to CLS."""
    if not 2 <= table.ndim <= 3 or table.shape[-1] != expected.shape[-1]:
        return False
    last = table.flatten(0, -2)[-len(expected) :]
    return last.shape == expected.shape and torch.allclose(last, expected, atol=TABLE_TOLERANCE)
