"""The HEAR 2021 common API: load_model, get_scene_embeddings, get_timestamp_embeddings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoints.foreign import load_any
from .checkpoints.hub import find_weights
from .model import HearModel
from .options import resolve_options

logger = logging.getLogger(__name__)

LOUD = 32.0  # values beyond this are surely not scaled to [-1, 1]
TOO_LOUD = 1e12  # values far beyond any sample format, whose power may overflow float32

FLOAT_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def load_model(model_file_path: str | Path = "", **options: Any) -> HearModel:
    """Load a model, ready for use (eval mode, on the CPU).

    Args:
        model_file_path: a `.safetensors` file of this package, a folder that
            `model.save_pretrained` wrote, "hf://user/repo" on the Hugging Face Hub, or a `.pth`
            checkpoint of another MSM-MAE implementation; by default the weights of the package.
        options: `mode`, `timestamp_hop_ms`, `normalization`, `precision`, `layer`,
            see `hear_msm_mae.options.resolve_options`.

    Raises:
        FileNotFoundError: no such file.
        ConnectionError: the Hub cannot be reached, and its repository is not in the local cache.
        ValueError: the file is damaged or of another architecture, or an option is unknown.

    >>> model = load_model(timestamp_hop_ms=20)
    >>> model.sample_rate
    16000
    """
    if not isinstance(model_file_path, (str, Path)):
        raise TypeError(
            f"model_file_path must be a str or Path, got {type(model_file_path).__name__}"
        )
    path = find_weights(model_file_path)
    checkpoint = load_any(path)
    resolved = resolve_options(checkpoint.config, options)
    model = HearModel(checkpoint.config, resolved)
    try:
        checkpoint.load_into(model.encoder)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if resolved.precision == "bfloat16":
        model.encoder.to(torch.bfloat16)
    model.decoder_tensors = checkpoint.decoder_tensors
    return model.eval()


# Not inference_mode: its tensors cannot enter a graph later, and people train probes on these.
@torch.no_grad()
def get_scene_embeddings(audio: Tensor | np.ndarray, model: HearModel) -> Tensor:
    """One embedding per clip.

    Args:
        audio: (b, n) waveforms at 16 kHz in [-1, 1], any float type, tensor or NumPy array.
        model: from `load_model`.

    Returns:
        (b, d) float32 on the model's device, d = model.scene_embedding_size.

    Raises:
        TypeError, ValueError: unusable audio or model; the message says what and how to fix it.

    >>> get_scene_embeddings(torch.zeros(2, 16000), load_model()).shape[0]
    2
    """
    _check_model(model)
    return model.scene_embeddings(_check_audio(audio))


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor | np.ndarray, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings over time, with the centre of what each of them saw.

    Args:
        audio: (b, n) waveforms at 16 kHz in [-1, 1], any float type, tensor or NumPy array.
        model: from `load_model`.

    Returns:
        (b, t, d) float32 embeddings, d = model.timestamp_embedding_size, and
        (b, t) float32 timestamps in ms, both on the model's device.

    Raises:
        TypeError, ValueError: unusable audio or model; the message says what and how to fix it.

    >>> get_timestamp_embeddings(torch.zeros(1, 3200), load_model())[1]
    tensor([[ 35.,  75., 115., 155., 195.]])
    """
    _check_model(model)
    return model.timestamp_embeddings(_check_audio(audio))


def _check_model(model: object) -> None:
    if not isinstance(model, HearModel):
        raise TypeError(
            "model must come from hear_msm_mae.load_model, "
            f"got {type(model).__module__}.{type(model).__qualname__}"
        )


def _check_audio(audio: object) -> Tensor:
    """A (b, n) float tensor with finite values; float types are converted later, in pieces."""
    if isinstance(audio, (list, tuple)):
        raise _list_error(audio)
    if isinstance(audio, np.ndarray):
        if audio.dtype.kind not in "f":
            raise TypeError(_dtype_message(audio.dtype))
        if audio.dtype not in (np.float16, np.float32, np.float64):  # big-endian, long double
            audio = audio.astype(np.float32)
        if not audio.flags.writeable or any(
            stride < 0 or stride % audio.itemsize for stride in audio.strides
        ):
            audio = audio.copy()  # torch takes none of these
        audio = torch.from_numpy(audio)
    if not isinstance(audio, Tensor):
        raise TypeError(
            "audio must be a torch.Tensor or numpy.ndarray of shape (b, n), "
            f"got {type(audio).__name__}"
        )
    if audio.dtype not in FLOAT_TYPES:
        raise TypeError(_dtype_message(audio.dtype))
    _check_shape(tuple(audio.shape))
    low, high = (value.item() for value in audio.detach().aminmax())  # both NaN if any value is
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        bad = [i for i, clip in enumerate(audio) if not bool(clip.detach().isfinite().all())]
        raise ValueError(
            f"audio contains NaN or Inf in clip(s) {bad[:10]}; expected finite values in [-1, 1]"
        )
    if max(-low, high) > TOO_LOUD:
        raise ValueError(f"audio reaches {max(-low, high):.4g}; expected finite values in [-1, 1]")
    if max(-low, high) > LOUD:
        logger.warning(
            "audio reaches %.4g; expected [-1, 1] (divide 16-bit samples by 32768)", max(-low, high)
        )
    return audio


def _check_shape(shape: tuple[int, ...]) -> None:
    expected = "audio must have shape (b, n): clips x samples"
    if len(shape) == 1:
        raise ValueError(f"{expected}; got 1-D {shape}, add a clip axis with audio[None, :]")
    if len(shape) == 3:
        raise ValueError(
            f"{expected}; got 3-D {shape}, mix channels to mono, e.g. audio.mean(1) for (b, c, n)"
        )
    if len(shape) != 2:
        raise ValueError(f"{expected}; got {len(shape)}-D {shape}")
    if shape[0] == 0:
        raise ValueError(f"audio is an empty batch of shape {shape}; expected at least one clip")
    if shape[1] == 0:
        raise ValueError(f"audio has zero samples, shape {shape}; expected at least one sample")


def _dtype_message(dtype: object) -> str:
    return (
        f"audio must be float32 (or float16, bfloat16, float64) in [-1, 1], got {dtype}; "
        "convert integer samples first, e.g. 16-bit: audio / 32768"
    )


def _list_error(audio: list[Any] | tuple[Any, ...]) -> Exception:
    # The last axis is time: clips may be (n,) or (1, n). Plain numbers and 0-D arrays have none.
    shapes = [
        tuple(getattr(clip, "shape", (len(clip),) if isinstance(clip, list) else ()))
        for clip in audio
    ]
    lengths = sorted({shape[-1] for shape in shapes if len(shape)})
    if len(lengths) > 1:
        return ValueError(
            f"audio is a {type(audio).__name__} of clips of unequal lengths (from {lengths[0]} to "
            f"{lengths[-1]} samples); embed them one at a time as (1, n), or batch equal lengths"
        )
    return TypeError(
        f"audio must be a torch.Tensor or numpy.ndarray of shape (b, n), got a "
        f"{type(audio).__name__}; use torch.stack or numpy.stack on clips of equal length"
    )
