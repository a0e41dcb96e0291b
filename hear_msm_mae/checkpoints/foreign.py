"""Convert PyTorch checkpoints of other MSM-MAE or M2D code to `Checkpoint`.

The file holds a state dictionary, alone or under `model`. Decoder, CLS token, position tables and
`norm_stats` are optional. Biases are separate (`q_bias`, `v_bias`) or joint (`qkv.bias`), and names
may have the prefixes of wrappers. Of fine-tuned models and models of audio and text the audio
encoder is read. `norm_pix_loss` is read from `args`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..config import DEFAULT_NORM_MEAN, DEFAULT_NORM_STD, parse_name
from .layout import DECODER, ENCODER, check_dense, check_layout, check_weights
from .native import Checkpoint, load_checkpoint
from .pickles import is_pickle, read_state
from .sizes import encoder_config, with_decoder
from .wrapped import audio_encoder

logger = logging.getLogger(__name__)

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
        path: the file. A pickle that would run code is refused.
        name: model name such as "80x208p16x16", for pickles whose tensors do not determine the
            unit size. By default it is searched in the names of the file and its folder.
        norm_pixels: whether the decoder predicts normalised patches. By default what the file says,
            a pickle in the `norm_pix_loss` of its `args`; if that is missing, false with a warning.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a weights file, is damaged or unsafe, or has another architecture.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"model_file_path {str(path)!r} {kind}")
    if path.suffix.lower() == ".onnx":
        raise ValueError(
            f"{path} is an ONNX file, which only load_model and embed can use; pass the PyTorch "
            "weights from which it was exported"
        )
    if is_pickle(path):
        return _load_pickle(path, name, norm_pixels)
    checkpoint = load_checkpoint(path)
    if norm_pixels is not None and checkpoint.has_decoder:
        config = dataclasses.replace(checkpoint.config, norm_pixels=norm_pixels)
        checkpoint = dataclasses.replace(checkpoint, config=config)
    return checkpoint


def _load_pickle(path: Path, name: str | None, norm_pixels: bool | None) -> Checkpoint:
    if name is not None and parse_name(name) is None:
        raise ValueError(f"name {name!r} is not a model name like 80x208p16x16")
    state, stats, args = read_state(path)
    given = args.get("norm_pix_loss")
    if norm_pixels is None and isinstance(given, (int, np.bool_)):
        norm_pixels = bool(given)
    try:
        checkpoint = convert_state(state, name or _name_in_path(path), stats, norm_pixels)
        # Only a name that the user gave must fit the tensors, not one that was found in the path.
        if name is not None and parse_name(name) != parse_name(checkpoint.config.name):
            raise ValueError(
                f"the name {name!r} contradicts the tensors, which are {checkpoint.config.name}"
            )
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
        name: model name for sizes that the tensors do not determine, or None.
        stats: (mean, std) of the log-mel values, or None for the defaults.
        norm_pixels: whether the decoder predicts normalised patches, or None for false.

    Returns:
        The checkpoint, with float32 tensors.

    Raises:
        ValueError: tensors are missing, unknown or damaged, or sizes are ambiguous.
    """
    state = audio_encoder(state)
    check_weights(state)
    config = encoder_config(state, name, *_statistics(stats))
    checkpoint = Checkpoint(config, _renamed(state))
    check_layout(ENCODER, checkpoint.tensors, config)
    if not checkpoint.has_decoder:
        return checkpoint
    try:
        config = with_decoder(config, state)
        check_layout(DECODER, checkpoint.tensors, config)
    except ValueError as error:
        logger.warning("the decoder is left out (embeddings do not need it): %s", error)
        encoder = {k: v for k, v in checkpoint.tensors.items() if k.startswith(ENCODER)}
        return Checkpoint(checkpoint.config, encoder)
    if norm_pixels is None:
        logger.warning(
            "the checkpoint has no norm_pix_loss (whether its decoder predicts normalised "
            "patches); it is taken as false, which matters only for reconstructions; set it with "
            "hear-msm-mae convert --norm-pixels or --no-norm-pixels"
        )
    config = dataclasses.replace(config, norm_pixels=bool(norm_pixels))
    return Checkpoint(config, checkpoint.tensors)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the fixed position tables, in float32, with this package's names."""
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
            # A key bias shifts all scores of a query by the same value, which softmax cancels.
            stem = new.removesuffix("bias")
            tensors[f"{stem}q_bias"], _, tensors[f"{stem}v_bias"] = tensor.flatten().tensor_split(3)
        else:
            tensors[new] = tensor
    return tensors


def _name_in_path(path: Path) -> str | None:
    """The model name in the name of the file, or else of its folder."""
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
