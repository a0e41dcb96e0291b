"""Conversion of PyTorch checkpoints of other MSM-MAE code to `Checkpoint`, without running code.

Understood: a dictionary with `model` (and anything beside it, such as `args`) or a bare state
dictionary; with or without decoder, CLS token, position tables and `norm_stats`; query and value
biases apart (`q_bias`, `v_bias`) or in a joint `qkv.bias`. Of `args`, an `argparse.Namespace` or a
dictionary, `norm_pix_loss` is read: Namespace is among the few classes that the restricted
unpickler makes, and all it does is to fill in attributes.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import pathlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import DEFAULT_NORM_MEAN, DEFAULT_NORM_STD, ModelConfig, parse_name
from ..encoder import Encoder, layer_norm, make_blocks
from .foreign_sizes import count_blocks, decoder_positions_of, heads_of, infer_config
from .native import Checkpoint, load_checkpoint

logger = logging.getLogger(__name__)


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
    if _is_pickle(path):
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
    if norm_pixels is None:
        norm_pixels = _norm_pixels(content.get("args"))
    try:
        tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
        checkpoint = convert_state(tensors, name or _name_in_path(path), stats, norm_pixels)
        _check_name(name, checkpoint.config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
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

    Raises:
        ValueError: tensors are missing or unknown, or sizes stay ambiguous.
    """
    state = {key: tensor.float() for key, tensor in state.items()}
    mean, std = _statistics(stats)
    decoder = {k: v for k, v in state.items() if k.startswith(("decoder_", "mask_token"))}
    state = {k: v for k, v in state.items() if k not in decoder}
    config = infer_config(state, name, mean, std)
    tensors = _rename_all(state)
    with torch.device("meta"):  # shapes without memory
        _check_complete(tensors, "encoder.", Encoder(config))
    if decoder:
        try:
            config, decoder = _convert_decoder(decoder, config)
        except ValueError as error:
            logger.warning("the decoder is left out (embeddings do not need it): %s", error)
        else:
            tensors |= decoder
            if norm_pixels is None:
                logger.warning(
                    "the checkpoint has no norm_pix_loss (whether its decoder predicts normalised "
                    "patches); taken as false, which only reconstructions depend on; "
                    "hear-msm-mae convert --norm-pixels or --no-norm-pixels says it"
                )
            config = dataclasses.replace(config, norm_pixels=bool(norm_pixels))
    return Checkpoint(config, tensors)


def _convert_decoder(
    state: Mapping[str, Tensor], config: ModelConfig
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration with the decoder's sizes, and the decoder's tensors.

    Raises:
        ValueError: the decoder is incomplete or of another architecture.
    """
    if state.get("decoder_embed.weight", torch.empty(0)).ndim != 2:
        raise ValueError("decoder_embed.weight is missing or misshapen")
    width = state["decoder_embed.weight"].shape[0]
    config = dataclasses.replace(
        config,
        decoder_width=width,
        decoder_depth=count_blocks(state, "decoder_blocks."),
        decoder_heads=heads_of(width),
        decoder_positions=decoder_positions_of(state, config, width),
    )
    tensors = _rename_all(state)
    with torch.device("meta"):
        expected = nn.Module()
        expected.embed = nn.Linear(config.width, width)
        expected.mask_token = nn.Parameter(torch.empty(1, 1, width))
        expected.blocks = make_blocks(
            width, config.decoder_depth, config.decoder_heads, config.mlp_ratio
        )
        expected.norm = layer_norm(width)
        expected.predict = nn.Linear(width, config.patch_area)
    _check_complete(tensors, "decoder.", expected)
    return config, tensors


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------
def _is_pickle(path: Path) -> bool:
    """Whether the file is a zip archive or a bare pickle stream, the two formats of torch.save."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[4:] == b"\0\0\0\0{":  # safetensors: size of the header (8 bytes), then JSON
        return False
    return head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05")


def _safe_load(path: Path) -> Any:
    multiarray = getattr(np, "_core", None) or np.core
    reconstruct = multiarray.multiarray._reconstruct
    scalar = multiarray.multiarray.scalar
    allowed: list[Any] = [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdU"),
        # Paths of any system and Python version, as pure ones: they can be made on any system.
        *(
            (pure, f"{module}.{kind}{system}Path")
            for pure, system in (
                (pathlib.PurePosixPath, "Posix"),
                (pathlib.PureWindowsPath, "Windows"),
            )
            for module in ("pathlib", "pathlib._local")
            for kind in ("", "Pure")
        ),
        # NumPy 1 and 2 give these functions different homes.
        *((reconstruct, f"numpy.{home}.multiarray._reconstruct") for home in ("core", "_core")),
        *((scalar, f"numpy.{home}.multiarray.scalar") for home in ("core", "_core")),
    ]
    try:
        # An open file: of a path that ends in .safetensors torch believes the ending.
        with path.open("rb") as file, torch.serialization.safe_globals(allowed):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"wants to load {wanted[1]}, which could run code"
            if wanted
            else "is damaged or needs more than tensors and plain values"
        )
        raise ValueError(f"{path} refused: the pickle {reason}") from error
    except Exception as error:  # damaged pickles raise nearly anything
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"{path} is truncated or not a PyTorch weights file ({reason})") from error


def _name_in_path(path: Path) -> str | None:
    """The file's own name first, then its folder's."""
    path = path.absolute()
    return next((part for part in (path.stem, path.parent.name) if parse_name(part)), None)


def _check_name(name: str | None, config: ModelConfig) -> None:
    """A name that the user gave must fit; one that merely occurs in a path need not."""
    if name is not None and parse_name(name) != parse_name(config.name):
        raise ValueError(f"the name {name!r} contradicts the tensors, which are {config.name}")


def _norm_pixels(args: Any) -> bool | None:
    """`norm_pix_loss` of the training's arguments, None where it is missing or no truth value."""
    if isinstance(args, argparse.Namespace):
        args = vars(args)
    value = args.get("norm_pix_loss") if isinstance(args, Mapping) else None
    return bool(value) if isinstance(value, (int, np.bool_)) else None


def _statistics(stats: Any) -> tuple[float, float]:
    if stats is None:
        logger.warning(
            "the checkpoint has no norm_stats; using mean %s and std %s",
            DEFAULT_NORM_MEAN,
            DEFAULT_NORM_STD,
        )
        return DEFAULT_NORM_MEAN, DEFAULT_NORM_STD
    if isinstance(stats, Tensor):
        stats = stats.detach().double()
    try:
        mean, std = np.asarray(stats, dtype=np.float64).reshape(-1).tolist()
    except (TypeError, ValueError) as error:
        raise ValueError(f"norm_stats must be mean and std, got {stats!r}") from error
    return mean, std


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


def _rename_all(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors but the fixed position tables under this package's names."""
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key not in ("pos_embed", "decoder_pos_embed"):
            tensors |= _rename(key, tensor)
    return tensors


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
        query, _, value = tensor.flatten().tensor_split(3)
        stem = new.removesuffix("bias")
        return {f"{stem}q_bias": query, f"{stem}v_bias": value}
    return {re.sub(r"\.attn\.([qv]_bias)$", r".attn.qkv.\1", new): tensor}


def _check_complete(tensors: Mapping[str, Tensor], prefix: str, module: nn.Module) -> None:
    """Every tensor of the module is there, under the prefix, has its shape, and no other is."""
    expected = {prefix + key: value.shape for key, value in module.state_dict().items()}
    found = {key: value.shape for key, value in tensors.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ValueError(
                f"not an MSM-MAE checkpoint: {key} should be {_shape(expected.get(key))}, "
                f"is {_shape(found.get(key))}"
            )


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
