"""Conversion of PyTorch checkpoints of other MSM-MAE code to `Checkpoint`, without running code.

Understood: a dictionary with `model` (and anything beside it, such as `args`) or a bare state
dictionary; with or without decoder, CLS token, position tables and `norm_stats`; query and value
biases apart (`q_bias`, `v_bias`) or in a joint `qkv.bias`; names with the prefixes of wrappers;
fine-tuned models and models of audio and text, of which the audio encoder is read. Of `args`, an
`argparse.Namespace` or a dictionary, `norm_pix_loss` is read.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import DEFAULT_NORM_MEAN, DEFAULT_NORM_STD, SAMPLE_RATE, ModelConfig, parse_name
from ..encoder import sincos_2d
from ..mae import sinusoid_table
from .layout import DECODER, ENCODER, check_dense, check_layout, check_weights
from .native import Checkpoint, load_checkpoint
from .pickles import is_pickle, read_state
from .wrapped import audio_encoder

logger = logging.getLogger(__name__)

HEAD_WIDTH = 64  # channels per attention head in this model family; tensors do not tell
TABLE_TOLERANCE = 2e-3  # position tables may have been stored in float16

# Names in other code -> names here, applied one after the other.
_NAMES = (
    (r"^decoder_pred\.", "decoder.predict."),
    (r"^decoder_", "decoder."),
    (r"^mask_token$", "decoder.mask_token"),
    (r"^(?!decoder\.)", "encoder."),
    (r"^encoder\.patch_embed\.proj\.", "encoder.patch_embed."),
    (r"\.attn\.([qv]_bias)$", r".attn.qkv.\1"),
)


def load_any(
    path: str | Path, name: str | None = None, norm_pixels: bool | None = None
) -> Checkpoint:
    """Read weights of any supported format: this package's safetensors or a PyTorch pickle.

    Args:
        path: the file.
        name: see `load_pickle`; safetensors hold their name.
        norm_pixels: what the decoder predicts, see `load_pickle`; it overrides safetensors too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable weights file, or of another architecture.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"model_file_path {str(path)!r} {kind}")
    if path.suffix.lower() == ".onnx":
        raise ValueError(
            f"{path} is an ONNX file, which load_model and embed take; this needs the weights for "
            "PyTorch that it was made from"
        )
    if is_pickle(path):
        return load_pickle(path, name, norm_pixels)
    checkpoint = load_checkpoint(path)
    if norm_pixels is not None and checkpoint.has_decoder:
        config = dataclasses.replace(checkpoint.config, norm_pixels=norm_pixels)
        checkpoint = dataclasses.replace(checkpoint, config=config)
    return checkpoint


def load_pickle(
    path: str | Path, name: str | None = None, norm_pixels: bool | None = None
) -> Checkpoint:
    """Read a `.pth` checkpoint; a pickle that wants to run code is refused.

    Args:
        path: file written by `torch.save`.
        name: model name such as "80x208p16x16", for files whose tensors leave the unit size open;
            by default it is looked for in the file name and its folder's name.
        norm_pixels: whether the decoder predicts patches normalised one by one; by default
            `norm_pix_loss` of the file's `args`, and false with a warning where that is missing.
            Weights without decoder have no such property, it stays false.

    Raises:
        ValueError: unreadable, unsafe, or not an MSM-MAE checkpoint.
    """
    path = Path(path)
    if name is not None and parse_name(name) is None:
        raise ValueError(f"name {name!r} is not a model name like 80x208p16x16")
    state, stats, args = read_state(path)
    given = args.get("norm_pix_loss")
    if norm_pixels is None and isinstance(given, (int, np.bool_)):
        norm_pixels = bool(given)
    try:
        checkpoint = convert_state(state, name or _name_in_path(path), stats, norm_pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    # A name that the user gave must fit; one that merely occurs in a path need not.
    if name is not None and parse_name(name) != parse_name(checkpoint.config.name):
        raise ValueError(
            f"{path}: the name {name!r} contradicts the tensors, which are {checkpoint.config.name}"
        )
    return checkpoint


def convert_state(
    state: Mapping[str, Tensor],
    name: str | None,
    stats: Any = None,
    norm_pixels: bool | None = None,
) -> Checkpoint:
    """Convert a state dictionary.

    Args:
        state: tensors by their name in the original model.
        name: model name for what the tensors leave open, or None.
        stats: (mean, std) of the log-mel values, or None for the defaults.
        norm_pixels: whether the decoder predicts normalised patches, or None for false.

    Returns:
        The checkpoint, with float32 tensors.

    Raises:
        ValueError: tensors are missing, unknown or damaged, or sizes stay ambiguous.
    """
    state = audio_encoder(state)
    check_weights(state)
    config = _encoder_config(state, name, *_statistics(stats))
    checkpoint = Checkpoint(config, _renamed(state))
    check_layout(ENCODER, checkpoint.tensors, config)
    if not checkpoint.has_decoder:
        return checkpoint
    try:
        config = _with_decoder(config, state)
        check_layout(DECODER, checkpoint.tensors, config)
    except ValueError as error:
        logger.warning("the decoder is left out (embeddings do not need it): %s", error)
        encoder = {k: v for k, v in checkpoint.tensors.items() if k.startswith(ENCODER)}
        return Checkpoint(checkpoint.config, encoder)
    if norm_pixels is None:
        logger.warning(
            "the checkpoint has no norm_pix_loss (whether its decoder predicts normalised "
            "patches); taken as false, which only reconstructions depend on; "
            "hear-msm-mae convert --norm-pixels or --no-norm-pixels says it"
        )
    config = dataclasses.replace(config, norm_pixels=bool(norm_pixels))
    return Checkpoint(config, checkpoint.tensors)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors but the fixed position tables, in float32, under this package's names."""
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key in ("pos_embed", "decoder_pos_embed"):
            continue
        new = key
        for pattern, replacement in _NAMES:
            new = re.sub(pattern, replacement, new)
        tensor = tensor.float()
        if new == "encoder.patch_embed.weight":  # the kernel of a convolution
            tensors[new] = tensor.flatten(1)
        elif new.endswith(".attn.qkv.bias"):
            # A key bias shifts all scores of a query alike, which the softmax cancels: drop it.
            stem = new.removesuffix("bias")
            tensors[f"{stem}q_bias"], _, tensors[f"{stem}v_bias"] = tensor.flatten().tensor_split(3)
        else:
            tensors[new] = tensor
    return tensors


def _name_in_path(path: Path) -> str | None:
    """The file's own name first, then its folder's."""
    path = path.absolute()
    return next((part for part in (path.stem, path.parent.name) if parse_name(part)), None)


def _statistics(stats: Any) -> tuple[float, float]:
    if stats is None:
        logger.warning(
            "the checkpoint has no norm_stats; using mean %s and std %s",
            DEFAULT_NORM_MEAN,
            DEFAULT_NORM_STD,
        )
        return DEFAULT_NORM_MEAN, DEFAULT_NORM_STD
    if isinstance(stats, Tensor):
        check_dense("norm_stats", stats)
    if isinstance(stats, (Tensor, np.ndarray)):
        stats = stats.reshape(-1)[:3].tolist()
    try:
        mean, std = map(float, stats)
    except (TypeError, ValueError) as error:
        raise ValueError(f"norm_stats must be mean and std, got {stats!r}") from error
    return mean, std


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------
def _encoder_config(
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
                "the tensors leave the unit size open; give the model name, e.g. --name "
                f"80x208p{p_f}x{p_t}"
            )
    ratio = hidden / width
    if int(width * ratio) != hidden:  # a hair below would lose a channel
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


def _with_decoder(config: ModelConfig, state: Mapping[str, Tensor]) -> ModelConfig:
    """The configuration with the decoder's sizes.

    Raises:
        ValueError: they cannot be told, or its positions are none of the fixed tables.
    """
    embed = state.get("decoder_embed.weight")
    if embed is None or embed.ndim != 2:
        raise ValueError("decoder_embed.weight is missing or misshapen")
    width = embed.shape[0]
    heads, positions = _heads(width), "1d"
    # Tables are recomputed, so others must not pass.
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
        # The first half of the channels is the time: it begins anew with each row.
        time = found[:, : width // 2].float()
        again = ((time[1:] - time[0]).abs().amax(1) <= TABLE_TOLERANCE).nonzero()
        columns = 1 + int(again[0]) if len(again) else patches
        rows = patches // columns
        if _close(found, sincos_2d(rows, columns, width).flatten(0, 1)):
            return rows, columns
    raise ValueError("pos_embed is not a fixed 2-D sin-cos table; trained tables are not supported")


def _patch_positions(table: Tensor, width: int, patches: int) -> Tensor | None:
    """The last rows of a table, without the one of CLS; None where it has another shape."""
    if table.ndim not in (2, 3) or table.shape[-1] != width:
        return None
    rows = table.flatten(0, -2)
    return rows[-patches:] if 0 < patches <= len(rows) else None


def _close(table: Tensor, expected: Tensor) -> bool:
    return table.shape == expected.shape and torch.allclose(
        table.float(), expected, atol=TABLE_TOLERANCE
    )


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks that have tensors; gaps between them are found by `check_layout`."""
    blocks = re.compile(rf"{prefix}\.([0-9]+)\.")
    return max(1, len({found[1] for key in state if (found := blocks.match(key))}))


def _heads(width: int) -> int:
    if not width or width % HEAD_WIDTH:
        raise ValueError(
            f"cannot tell the number of heads: the width {width} is not a multiple of {HEAD_WIDTH}"
        )
    return width // HEAD_WIDTH
