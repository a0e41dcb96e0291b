"""Conversion of PyTorch checkpoints of other MSM-MAE code to `Checkpoint`, without running code.

Understood: a dictionary with `model` (and anything beside it, such as `args`) or a bare state
dictionary; with or without decoder, CLS token, position tables and `norm_stats`; query and value
biases apart (`q_bias`, `v_bias`) or in a joint `qkv.bias`.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import Checkpoint, load_checkpoint
from .config import DEFAULT_NORM_MEAN, DEFAULT_NORM_STD, ModelConfig, parse_name
from .encoder import Encoder, sincos_2d

logger = logging.getLogger(__name__)

HEAD_WIDTH = 64  # channels per attention head in this model family; tensors do not tell
TABLE_TOLERANCE = 2e-3  # position tables may have been stored in float16


def load_any(path: str | Path, name: str | None = None) -> Checkpoint:
    """Read weights of any supported format: this package's safetensors or a PyTorch pickle.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable weights file, or of another architecture.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"model_file_path {str(path)!r} {kind}")
    if _is_pickle(path):
        return load_pickle(path, name)
    return load_checkpoint(path)


def load_pickle(path: str | Path, name: str | None = None) -> Checkpoint:
    """Read a `.pth` checkpoint; a pickle that wants to run code is refused.

    Args:
        path: file written by `torch.save`.
        name: model name such as "80x208p16x16", for files whose tensors leave the unit size open;
            by default it is looked for in the file name and its folder's name.

    Raises:
        ValueError: unreadable, unsafe, or not an MSM-MAE checkpoint.
    """
    path = Path(path)
    content = _safe_load(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    state = content.get("model", content)
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path}: 'model' is a {type(state).__name__}, expected a state dictionary"
        )
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    stats = state.pop("norm_stats", content.get("norm_stats"))
    if name is not None and parse_name(name) is None:
        raise ValueError(f"name {name!r} is not a model name like 80x208p16x16")
    found = name or _name_in_path(path)
    try:
        return convert_state(
            {k: v for k, v in state.items() if isinstance(v, Tensor)}, found, stats
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def convert_state(state: Mapping[str, Tensor], name: str | None, stats: Any = None) -> Checkpoint:
    """Convert a state dictionary.

    Args:
        state: tensors by their name in the original model.
        name: model name for what the tensors leave open, or None.
        stats: (mean, std) of the log-mel values, or None for the defaults.

    Raises:
        ValueError: tensors are missing or unknown, or sizes stay ambiguous.
    """
    state = {key: tensor.float() for key, tensor in state.items()}
    mean, std = _statistics(stats)
    config = _infer_config(state, name, mean, std)
    _check_tables(state, config)
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key not in ("pos_embed", "decoder_pos_embed"):
            tensors.update(_rename(key, tensor))
    _check_complete(tensors, config)
    return Checkpoint(config, tensors)


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------
def _is_pickle(path: Path) -> bool:
    """Whether the file is a zip archive or a bare pickle stream, the two formats of torch.save."""
    with path.open("rb") as file:
        head = file.read(2)
    return head == b"PK" or (head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04"))


def _safe_load(path: Path) -> Any:
    multiarray = getattr(np, "_core", None) or np.core
    reconstruct = multiarray.multiarray._reconstruct
    scalar = multiarray.multiarray.scalar
    allowed: list[Any] = [
        argparse.Namespace,
        pathlib.PosixPath,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8")),
        # NumPy 1 and 2 give these functions different homes.
        *((reconstruct, f"numpy.{home}.multiarray._reconstruct") for home in ("core", "_core")),
        *((scalar, f"numpy.{home}.multiarray.scalar") for home in ("core", "_core")),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"wants to load {wanted[1]}, which could run code"
            if wanted
            else "is damaged or needs more than tensors and plain values"
        )
        raise ValueError(f"{path} refused: the pickle {reason}") from error
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is truncated or not a PyTorch weights file ({error})".splitlines()[0]
        ) from error


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
    values = np.asarray(stats, dtype=np.float64).reshape(-1)
    if values.shape != (2,):
        raise ValueError(f"norm_stats must be mean and std, got {values.size} values")
    return float(values[0]), float(values[1])


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------
def _infer_config(
    state: Mapping[str, Tensor], name: str | None, mean: float, std: float
) -> ModelConfig:
    try:
        patch = state["patch_embed.proj.weight"]
        width = state["norm.weight"].shape[0]
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        sizes: dict[str, Any] = {
            "patch_mels": patch.shape[2],
            "patch_frames": patch.shape[3],
            "width": width,
            "depth": _count_blocks(state, "blocks."),
            "heads": _heads(width),
            "mlp_ratio": hidden / width,
            "cls_token": "cls_token" in state,
        }
        if "decoder_embed.weight" in state:
            decoder_width = state["decoder_embed.weight"].shape[0]
            sizes["decoder_width"] = decoder_width
            sizes["decoder_depth"] = _count_blocks(state, "decoder_blocks.")
            sizes["decoder_heads"] = _heads(decoder_width)
    except (KeyError, IndexError) as error:
        raise ValueError(f"not an MSM-MAE checkpoint: {error} is missing or misshapen") from error
    patches = None
    if "pos_embed" in state:
        patches = state["pos_embed"].shape[-2] - int(sizes["cls_token"])
    sizes |= _unit_size(state, sizes, name, patches)
    config = ModelConfig(**sizes, norm_mean=mean, norm_std=std)
    if "decoder_pos_embed" in state and not _is_1d_table(state["decoder_pos_embed"]):
        config = ModelConfig(**sizes, norm_mean=mean, norm_std=std, decoder_positions="2d")
    return config


def _unit_size(
    state: Mapping[str, Tensor], sizes: Mapping[str, Any], name: str | None, patches: int | None
) -> dict[str, int]:
    """Mel bins and frames of a unit, from the position table or the name."""
    p_f, p_t = sizes["patch_mels"], sizes["patch_frames"]
    named = parse_name(name) if name else None
    if named:
        if (named["patch_mels"], named["patch_frames"]) != (p_f, p_t):
            raise ValueError(
                f"the name {name!r} contradicts the tensors: their patch is {p_f}x{p_t}"
            )
        count = (named["n_mels"] // p_f) * (named["unit_frames"] // p_t)
        if patches not in (None, count):
            raise ValueError(
                f"the name {name!r} contradicts the tensors: it means {count} patches, "
                f"their position table has {patches}"
            )
        return {"n_mels": named["n_mels"], "unit_frames": named["unit_frames"]}
    if patches is not None:
        table = state["pos_embed"].reshape(-1, sizes["width"])[-patches:]
        for rows in (r for r in range(1, patches + 1) if patches % r == 0):
            expected = sincos_2d(rows, patches // rows, sizes["width"]).flatten(0, 1)
            if torch.allclose(table, expected, atol=TABLE_TOLERANCE):
                return {"n_mels": rows * p_f, "unit_frames": patches // rows * p_t}
    raise ValueError(
        "the tensors leave the unit size open; give the model name, e.g. --name 80x208p16x16"
    )


def _heads(width: int) -> int:
    if width % HEAD_WIDTH:
        raise ValueError(
            f"cannot tell the number of heads: the width {width} is not a multiple of {HEAD_WIDTH}"
        )
    return width // HEAD_WIDTH


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(k[len(prefix) :].split(".")[0]) for k in state if k.startswith(prefix))


def _is_1d_table(table: Tensor) -> bool:
    # Position 0 of the interleaved sinusoids is 0, 1, 0, 1, ...; of the 2-D table 0, ..., 1, ...
    # A leading row of zeros belongs to CLS.
    rows = table.reshape(-1, table.shape[-1])
    first = rows[1] if bool((rows[0] == 0).all()) else rows[0]
    return bool((first[0::2].abs() < TABLE_TOLERANCE).all())


def _check_tables(state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """The tables are recomputed, so a file whose encoder table differs must not pass."""
    if "pos_embed" not in state:
        return
    expected = sincos_2d(config.rows, config.columns, config.width).flatten(0, 1)
    table = state["pos_embed"].reshape(-1, config.width)[-len(expected) :]
    if not torch.allclose(table, expected, atol=TABLE_TOLERANCE):
        raise ValueError(
            f"pos_embed is not the fixed sin-cos table of {config.name}; "
            "trained position tables are not supported"
        )


# ---------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------
_RENAMED = {
    "patch_embed.proj.weight": "encoder.patch_embed.weight",
    "patch_embed.proj.bias": "encoder.patch_embed.bias",
    "cls_token": "encoder.cls_token",
    "norm.weight": "encoder.norm.weight",
    "norm.bias": "encoder.norm.bias",
    "mask_token": "decoder.mask_token",
    "decoder_embed.weight": "decoder.embed.weight",
    "decoder_embed.bias": "decoder.embed.bias",
    "decoder_norm.weight": "decoder.norm.weight",
    "decoder_norm.bias": "decoder.norm.bias",
    "decoder_pred.weight": "decoder.predict.weight",
    "decoder_pred.bias": "decoder.predict.bias",
}


def _rename(key: str, tensor: Tensor) -> dict[str, Tensor]:
    """One original tensor under this package's name; a joint bias becomes two."""
    if key in _RENAMED:
        return {_RENAMED[key]: tensor.flatten(1) if key.endswith("proj.weight") else tensor}
    if not key.startswith(("blocks.", "decoder_blocks.")):
        raise ValueError(f"unknown tensor {key!r}: not an MSM-MAE checkpoint")
    new = key.replace("decoder_blocks.", "decoder.blocks.")
    new = new if new.startswith("decoder.") else f"encoder.{new}"
    if new.endswith(".attn.qkv.bias"):
        # A key bias shifts all scores of a query alike, which the softmax cancels: drop it.
        query, _, value = tensor.chunk(3)
        stem = new.removesuffix("bias")
        return {f"{stem}q_bias": query, f"{stem}v_bias": value}
    return {re.sub(r"\.attn\.([qv]_bias)$", r".attn.qkv.\1", new): tensor}


def _check_complete(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Every encoder tensor is there and has its shape (meta device: no memory is used)."""
    with torch.device("meta"):
        expected = {f"encoder.{k}": v.shape for k, v in Encoder(config).state_dict().items()}
    found = {k: v.shape for k, v in tensors.items() if k.startswith("encoder.")}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ValueError(
                f"not an MSM-MAE checkpoint: {key} should be {_shape(expected.get(key))}, "
                f"is {_shape(found.get(key))}"
            )


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
