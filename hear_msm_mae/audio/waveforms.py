"""Convert recordings in memory (arrays, dictionaries, decoders) to mono waveforms."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from .channels import Mixer, warn_of_cancellation
from .read import RATES, read_audio, resample

_MOST_CHANNELS = 64  # with more channels than this, the axes are probably exchanged


def waveform_of(
    item: Any,
    *,
    channel: str | int = "mix",
    sample_rate: int = SAMPLE_RATE,
    name: str = "waveform",
) -> NDArray[np.float32]:
    """Convert a recording in memory to a mono waveform; it is resampled in the same way as files.

    Args:
        item: one of
            - (samples, rate): an array or tensor (n,) or (channels, n) in floating point, and
              its rate in Hz;
            - {"array": samples, "sampling_rate": rate}, as Hugging Face datasets have it;
            - {"path": ..., "bytes": ...}, as Hugging Face datasets have it with decode=False:
              the bytes of an audio file, or None, in which case the file is read;
            - an object with `get_all_samples()`, whose result has `data` (channels, n) and
              `sample_rate`, as torchcodec's AudioDecoder;
            - a path, which `read_audio` reads.
        channel: "mix" for the mean of the channels, "left", "right", or a number from 0.
        sample_rate: sample rate of the result in Hz.
        name: name of the recording, for messages.

    Returns:
        (n,) float32.

    Raises:
        FileNotFoundError, ValueError: as `read_audio`.
        TypeError: the item is of another type, or its samples are not floating point.

    >>> waveform_of((np.zeros((2, 44100)), 44100)).shape
    (16000,)
    >>> waveform_of({"array": np.zeros(100), "sampling_rate": 16000}).dtype
    dtype('float32')
    """
    if isinstance(item, (str, os.PathLike)):
        return read_audio(Path(item), channel=channel, sample_rate=sample_rate)
    if isinstance(item, Mapping) and "array" not in item:
        return _from_bytes(item, channel, sample_rate, name)
    samples, rate = _samples_and_rate(item, name)
    mixer = Mixer(name, channel)
    mono = mixer(_as_array(samples, name).T)
    if mixer.cancelled:
        warn_of_cancellation(name)
    return resample(np.ascontiguousarray(mono), rate, sample_rate)


def _samples_and_rate(item: Any, name: str) -> tuple[Any, int]:
    if isinstance(item, Mapping):
        if "sampling_rate" not in item:
            raise ValueError(f'{name}: "sampling_rate" is missing beside "array"')
        samples, rate = item["array"], item["sampling_rate"]
    elif isinstance(item, tuple) and len(item) == 2:
        samples, rate = item
    elif hasattr(item, "get_all_samples"):
        decoded = item.get_all_samples()
        samples, rate = decoded.data, decoded.sample_rate
    else:
        raise TypeError(
            f'{name}: expected (samples, rate), {{"array": ..., "sampling_rate": ...}}, '
            f"an audio decoder or a path, got {type(item).__name__}"
        )
    try:
        whole = int(rate)
    except (TypeError, ValueError):
        whole = 0
    if whole != rate or whole not in RATES:
        raise ValueError(
            f"{name}: the rate must be a whole number of Hz, from {RATES[0]} on, got {rate!r}"
        )
    return samples, whole


def _as_array(samples: Any, name: str) -> NDArray[np.float32]:
    """Samples as (channels, n)."""
    if hasattr(samples, "detach"):  # NumPy cannot read tensors in bfloat16 or on another device
        samples = samples.detach().cpu()
        samples = samples.float() if samples.is_floating_point() else samples
    array = np.asarray(samples)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name}: samples must be floating point in [-1, 1], got {array.dtype}; "
            "divide 16-bit integers by 32768"
        )
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or not 1 <= len(array) <= max(1, min(_MOST_CHANNELS, array.shape[1])):
        raise ValueError(
            f"{name}: samples must have the shape (n,) or (channels, n), got {np.shape(samples)}"
        )
    if not array.size:
        raise ValueError(f"{name}: holds no audio samples")
    return array.astype(np.float32, copy=False)


def _from_bytes(
    item: Mapping[str, Any], channel: str | int, sample_rate: int, name: str
) -> NDArray[np.float32]:
    """An encoded file in memory, or the file of the item's path."""
    path, content = item.get("path"), item.get("bytes")
    if content is None:
        if path is None:
            raise ValueError(
                f'{name}: expected "array" and "sampling_rate", or "bytes", or "path"; '
                f"got the keys {sorted(map(str, item))}"
            )
        return read_audio(path, channel=channel, sample_rate=sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        # The decoders need a file. Its ending is a hint for some formats.
        file = Path(folder, "recording").with_suffix(Path(str(path or "")).suffix)
        file.write_bytes(io.BytesIO(content).getbuffer())
        try:
            return read_audio(file, channel=channel, sample_rate=sample_rate)
        except ValueError as error:
            raise ValueError(str(error).replace(str(file), str(path or name))) from error
