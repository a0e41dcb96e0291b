"""Checks of waveforms, the same at every entrance."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

LOUD = 32.0  # values beyond this are surely not scaled to [-1, 1]
TOO_LOUD = 1e12  # values far beyond any sample format, whose power may overflow float32

FLOAT_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_waveforms(audio: object) -> Tensor:
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
