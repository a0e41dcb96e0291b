"""Sizes of the model in a checkpoint of other code, from the shapes of its tensors."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import SAMPLE_RATE, ModelConfig, parse_name
from ..encoder import sincos_2d
from ..mae import sinusoid_table

HEAD_WIDTH = 64  # channels per attention head; all models of this family have the same
TABLE_TOLERANCE = 2e-3  # position tables may be stored in float16


def encoder_config(
    state: Mapping[str, Tensor], name: str | None, mean: float, std: float
) -> ModelConfig:
    """Configuration of the encoder in a state dictionary with the original names.

    Raises:
        ValueError: a tensor is missing or misshapen, or `name` is needed for the unit size.
    """
    try:
        _, _, p_f, p_t = state["patch_embed.proj.weight"].shape
        width = state["norm.weight"].shape[0]
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"not an MSM-MAE checkpoint: {error} is missing") from error
    except (IndexError, ValueError) as error:
        raise ValueError(
            "not an MSM-MAE checkpoint: patch_embed.proj.weight, norm.weight or "
            "blocks.0.mlp.fc1.weight is misshapen"
        ) from error
    heads, cls_token = _heads(width), "cls_token" in state
    unit: dict[str, Any] = (parse_name(name) if name else None) or {}
    if "pos_embed" in state:  # says more than a name; only the sample rate is in the name alone
        rows, columns = _grid(state["pos_embed"], width, cls_token)
        rate = unit.get("sample_rate", SAMPLE_RATE)
        unit = {"n_mels": rows * p_f, "unit_frames": columns * p_t, "sample_rate": rate}
    else:
        if (unit.pop("patch_mels", None), unit.pop("patch_frames", None)) != (p_f, p_t):
            raise ValueError(
                "the tensors leave the unit size open; pass the model name, e.g. --name "
                f"80x208p{p_f}x{p_t}"
            )
    ratio = hidden / width
    if int(width * ratio) != hidden:  # rounding down would lose a channel
        ratio = math.nextafter(ratio, math.inf)
    return ModelConfig(
        **unit,
        patch_mels=p_f,
        patch_frames=p_t,
        width=width,
        depth=_count_blocks(state, "blocks"),
        heads=heads,
        mlp_ratio=ratio,
        cls_token=cls_token,
        norm_mean=mean,
        norm_std=std,
    )


def with_decoder(config: ModelConfig, state: Mapping[str, Tensor]) -> ModelConfig:
    """The configuration with the decoder's sizes.

    Raises:
        ValueError: the sizes are unknown, or its position table is not a fixed one.
    """
    embed = state.get("decoder_embed.weight")
    if embed is None or embed.ndim != 2:
        raise ValueError("decoder_embed.weight is missing or misshapen")
    width = embed.shape[0]
    heads, positions = _heads(width), "1d"
    # Tables are recomputed when the model is built, so other tables must be refused.
    if (table := state.get("decoder_pos_embed")) is not None:
        rows = _patch_positions(table, width, config.rows * config.columns)
        if rows is None:
            raise ValueError("decoder_pos_embed is not a fixed sinusoid table")
        if not _close(rows, sinusoid_table(len(rows), width)):
            if not _close(rows, sincos_2d(config.rows, config.columns, width).flatten(0, 1)):
                raise ValueError("decoder_pos_embed is not a fixed sinusoid table")
            positions = "2d"
    return dataclasses.replace(
        config,
        decoder_width=width,
        decoder_depth=_count_blocks(state, "decoder_blocks"),
        decoder_heads=heads,
        decoder_positions=positions,
    )


def _grid(table: Tensor, width: int, cls_token: bool) -> tuple[int, int]:
    """Rows and columns of a 2-D sin-cos position table."""
    patches = table.numel() // width - int(cls_token)
    found = _patch_positions(table, width, patches)
    if found is not None:
        # The first half of the channels encodes time, which starts again in each row.
        time = found[:, : width // 2].float()
        again = ((time[1:] - time[0]).abs().amax(1) <= TABLE_TOLERANCE).nonzero()
        columns = 1 + int(again[0]) if len(again) else patches
        rows = patches // columns
        if _close(found, sincos_2d(rows, columns, width).flatten(0, 1)):
            return rows, columns
    raise ValueError("pos_embed is not a fixed 2-D sin-cos table; trained tables are not supported")


def _patch_positions(table: Tensor, width: int, patches: int) -> Tensor | None:
    """Rows of a table for the patches, without CLS; None if it has another shape."""
    if table.ndim not in (2, 3) or table.shape[-1] != width:
        return None
    rows = table.flatten(0, -2)
    return rows[-patches:] if 0 < patches <= len(rows) else None


def _close(table: Tensor, expected: Tensor) -> bool:
    return table.shape == expected.shape and torch.allclose(
        table.float(), expected, atol=TABLE_TOLERANCE
    )


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks with tensors. `check_layout` finds missing blocks."""
    blocks = re.compile(rf"{prefix}\.([0-9]+)\.")
    return max(1, len({found[1] for key in state if (found := blocks.match(key))}))


def _heads(width: int) -> int:
    if not width or width % HEAD_WIDTH:
        raise ValueError(
            f"cannot tell the number of heads: the width {width} is not a multiple of {HEAD_WIDTH}"
        )
    return width // HEAD_WIDTH
