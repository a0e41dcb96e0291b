"""The HEAR 2021 common API: load_model, get_scene_embeddings, get_timestamp_embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints.foreign import load_any
from .checkpoints.hub import find_weights
from .model import HearModel
from .options import resolve_options


def load_model(
    model_file_path: str | Path = "",
    *,
    device: str | torch.device | None = None,
    timestamp_hop_ms: int | None = None,
    normalization: Literal["stored", "batch"] | tuple[float, float] | None = None,
    precision: Literal["float32", "bfloat16", "auto"] = "float32",
    layer: int | Literal["last"] | Sequence[int] | None = None,
    scene_pooling: Literal["mean", "mean+std"] | None = None,
    mode: Literal["default", "paper", "m2d"] = "default",
    **unknown: Any,
) -> HearModel:
    """Load a model, ready for use (eval mode).

    Args:
        model_file_path: a `.safetensors` file of this package, a folder that
            `model.save_pretrained` wrote, "hf://user/repo" on the Hugging Face Hub, a `.pth`
            checkpoint of another MSM-MAE implementation or of M2D, or an `.onnx` file of
            `hear-msm-mae export-onnx`; by default the weights of the package.
        device: device of the model, by default the CPU. `model.to(device)` moves it later.
        timestamp_hop_ms: distance of the timestamps in ms, a multiple of 10 that divides the patch
            width. By default 40, or the largest possible value below 40.
        normalization: statistics that normalise the log-mel spectrogram: "stored" in the weights
            (the default), "batch" (the default in paper mode), or a pair (mean, std).
        precision: precision of the encoder: "float32", "bfloat16", or "auto" for bfloat16 if the
            device has instructions for it.
        layer: encoder block whose output is the embedding: "last", an index (negative: from the
            end), or a list of indices, whose embeddings are concatenated. By default the block that
            the weights name.
        scene_pooling: "mean" of the frame embeddings over time, or "mean+std": their mean and
            standard deviation, concatenated. By default the one that the weights name; in the
            published runtimes the mean.
        mode: "default", or a published runtime that is repeated exactly: "paper" (MSM-MAE: batch
            statistics, padding of whole units with the mean, timestamps from 0) or "m2d" (M2D:
            stored statistics, padding to whole patches with the mean, timestamps from 0).
        unknown: other names raise ValueError, which lists the valid names.

    Raises:
        FileNotFoundError: the file does not exist.
        ConnectionError: the Hub cannot be reached, and the repository is not in the local cache.
        ValueError: the file is damaged or has another architecture, an option is unknown or has a
            wrong value, or the device is not available.

    >>> model = load_model(timestamp_hop_ms=20)
    >>> model.sample_rate
    16000
    """
    if not isinstance(model_file_path, (str, Path)):
        raise TypeError(
            f"model_file_path must be a str or Path, got {type(model_file_path).__name__}"
        )
    given = {
        "timestamp_hop_ms": timestamp_hop_ms,
        "normalization": normalization,
        "precision": precision,
        "layer": layer,
        "scene_pooling": scene_pooling,
        "mode": mode,
    }
    place = _usable_device("cpu" if device is None else device)
    path = find_weights(model_file_path)
    if path.suffix.lower() == ".onnx":
        from .onnx_model import load_onnx  # which imports onnxruntime

        return load_onnx(path, given | unknown).to(place)
    checkpoint = load_any(path)
    options = resolve_options(checkpoint.config, given | unknown, place)
    try:
        model = HearModel(checkpoint, options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model.to(place)


# Tensors of inference_mode cannot be used in training, and people train probes on these.
@torch.no_grad()
def get_scene_embeddings(audio: Tensor | np.ndarray, model: HearModel) -> Tensor:
    """One embedding per clip.

    Args:
        audio: (b, n) waveforms at 16 kHz in [-1, 1], any float type, tensor or NumPy array.
        model: from `load_model`; torch.compile or DataParallel may be around it.

    Returns:
        (b, d) float32 on the model's device, d = model.scene_embedding_size.

    Raises:
        TypeError, ValueError: unusable audio or model; the message says what and how to fix it.

    >>> get_scene_embeddings(torch.zeros(2, 16000), load_model()).shape[0]
    2
    """
    embeddings: Tensor = unwrap(model)(audio)
    return embeddings


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor | np.ndarray, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings over time, and the centre of each in ms.

    Args:
        audio: (b, n) waveforms at 16 kHz in [-1, 1], any float type, tensor or NumPy array.
        model: from `load_model`; torch.compile or DataParallel may be around it.

    Returns:
        (b, t, d) float32 embeddings, d = model.timestamp_embedding_size, and
        (b, t) float32 timestamps in ms, both on the model's device.

    Raises:
        TypeError, ValueError: unusable audio or model; the message says what and how to fix it.

    >>> get_timestamp_embeddings(torch.zeros(1, 3200), load_model())[1]
    tensor([[ 35.,  75., 115., 155., 195.]])
    """
    return unwrap(model).timestamp_embeddings(audio)


def unwrap(model: object) -> HearModel:
    """The model inside torch.compile, DataParallel or DistributedDataParallel.

    Raises:
        TypeError: `load_model` did not make it.
    """
    inner = model
    while isinstance(inner, nn.Module) and not isinstance(inner, HearModel):
        wrapped = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if wrapped is None:
            break
        inner = wrapped
    if not isinstance(inner, HearModel):
        raise TypeError(
            "model must come from hear_msm_mae.load_model, "
            f"got {type(model).__module__}.{type(model).__qualname__}"
        )
    return inner


def _usable_device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(name)!r} is not usable here: {error}") from error
    return device
