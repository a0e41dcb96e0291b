"""Checks of audio, the same for tensors, arrays, files and `model(audio)`."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

LOUD = 32.0  # larger values are certainly not scaled to [-1, 1]
TOO_LOUD = 1e12  # larger values are in no sample format, and their power may overflow float32

FLOAT_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_waveforms(audio: object) -> Tensor:
    """A batch of waveforms as a dense tensor with usable values.

    Args:
        audio: (b, n) tensor or NumPy array of float32, float64, float16 or bfloat16.

    Returns:
        (b, n) tensor of the same float type, on the same device. It shares memory with the input
        if torch can read it. Other float types of NumPy become float32.

    Raises:
        TypeError: it is not a tensor or array of a float type.
        ValueError: it has another shape or no values, or values that a waveform cannot have.

    >>> check_waveforms(np.zeros((2, 16000), np.float32)).shape
    torch.Size([2, 16000])
    """
    if isinstance(audio, (list, tuple)):
        raise _list_error(audio)
    tensor = _from_array(audio) if isinstance(audio, np.ndarray) else audio
    if not isinstance(tensor, Tensor):
        raise TypeError(
            "audio must be a torch.Tensor or numpy.ndarray of shape (b, n), "
            f"got {type(audio).__name__}"
        )
    tensor = _plain(tensor)
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(_dtype_message(tensor.dtype))
    _check_shape(tuple(tensor.shape))
    low, high = torch.stack(tensor.detach().aminmax()).tolist()  # NaN if any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = [i for i, clip in enumerate(tensor) if not bool(clip.detach().isfinite().all())]
        raise ValueError(
            f"audio contains NaN or Inf in clip(s) {bad[:10]}; expected finite values in [-1, 1]"
        )
    check_levels(low, high, "audio")
    return tensor


def check_levels(low: float, high: float, name: str) -> None:
    """Warn of waveforms that are not scaled to [-1, 1]; refuse those that cannot be embedded.

    Args:
        low, high: smallest and largest sample.
        name: name of the waveforms in the message: "audio" or a file.

    Raises:
        ValueError: NaN or Inf, or values whose power may overflow float32.

    >>> check_levels(-1.0, 0.5, "audio")
    """
    peak = max(-low, high)
    if math.isnan(low) or math.isnan(high) or peak == math.inf:
        raise ValueError(f"{name} contains NaN or Inf; expected finite values in [-1, 1]")
    if peak > TOO_LOUD:
        raise ValueError(f"{name} reaches {peak:.4g}; expected finite values in [-1, 1]")
    if peak > LOUD:
        logger.warning(
            "%s reaches %.4g; expected [-1, 1] (divide 16-bit samples by 32768)", name, peak
        )


def _from_array(audio: np.ndarray[Any, Any]) -> Tensor:
    if isinstance(audio, np.ma.MaskedArray):
        raise TypeError("audio is a masked array; fill what is masked, e.g. audio.filled(0)")
    audio = np.asarray(audio)
    if audio.dtype.kind != "f":
        raise TypeError(_dtype_message(audio.dtype))
    if audio.dtype not in (np.float16, np.float32, np.float64):  # big-endian, long double
        with np.errstate(over="ignore"):  # infinity is refused later
            audio = audio.astype(np.float32)
    if not audio.flags.writeable or any(
        stride < 0 or stride % audio.itemsize for stride in audio.strides
    ):
        audio = audio.copy()  # torch takes none of these
    return torch.from_numpy(audio)


def _plain(audio: Tensor) -> Tensor:
    """The tensor as a plain torch.Tensor.

    Raises:
        TypeError: it is not dense; the message says how to convert it.
        ValueError: it has no values.
    """
    if audio.is_nested:
        raise TypeError(
            "audio is a nested tensor; embed its clips one at a time as (1, n), or batch equal "
            "lengths"
        )
    if audio.layout != torch.strided:
        raise TypeError(f"audio has the layout {audio.layout}; make it dense with audio.to_dense()")
    if audio.is_quantized:
        raise TypeError("audio is a quantised tensor; convert it with audio.dequantize()")
    if audio.device.type == "meta":
        raise ValueError("audio is on the meta device, where tensors have no values")
    if type(audio) is Tensor:
        return audio
    # Such a class keeps its values elsewhere (masked and fake tensors, for instance).
    if type(audio).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise TypeError(f"audio is a {type(audio).__name__}; expected a plain torch.Tensor")
    return audio.as_subclass(Tensor)


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
