"""Settings that decide the values of embeddings. They are stored with every output.

A run that continues an output must have the same settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..files import printable
from ..model import HearModel

DTYPES = ("float32", "float16")

# Settings that must be the same for a run to continue, and the option of `embed` behind each.
COMPARED = {
    "weights": "--weights",
    "mode": "--mode",
    "precision": "--precision",
    "layers": "--layer",
    "normalization": "--normalization",
    "timestamps": "--timestamps",
    "scene_pooling": "--scene-pooling",
    "hop_ms": "--hop-ms",
    "segment": "--segment",
    "overlap": "--overlap",
    "dtype": "--dtype",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run; made by `settings_of`."""

    model: str  # name of the model, e.g. "80x208p16x16"
    weights: str  # hash of the weights and the configuration
    weights_name: str  # name of the weights for people; it is not compared
    mode: str  # this and the following are options of `load_model`
    precision: str
    layers: str
    normalization: str
    scene_pooling: str | None  # None with timestamps
    timestamps: bool  # True for embeddings over time, False for one embedding per clip
    hop_ms: int | None  # distance of the timestamps; None without timestamps
    segment: float | None  # length of the windows in seconds
    overlap: float  # in seconds
    dtype: str  # of the stored embeddings, "float32" or "float16"

    def stored(self) -> dict[str, Any]:
        """The settings as a dictionary, as outputs store them."""
        return dataclasses.asdict(self)


def settings_of(
    model: HearModel,
    weights_name: str,
    timestamps: bool = False,
    segment: float | None = None,
    overlap: float = 0.0,
    dtype: str = "float32",
) -> Settings:
    """Settings of a run with a model; see `Settings` for the arguments.

    Raises:
        ValueError: the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}")
    options = model.options
    return Settings(
        model=model.config.name,
        weights=fingerprint(model),
        weights_name=weights_name,
        mode=options.mode,
        precision=options.precision,
        layers=f"{', '.join(map(str, options.layers))} x {options.scale:g}",
        normalization=str(options.normalization),
        scene_pooling=None if timestamps else options.scene_pooling,
        timestamps=timestamps,
        hop_ms=options.timestamp_hop_ms if timestamps else None,
        segment=None if segment is None else float(segment),
        overlap=float(overlap),
        dtype=dtype,
    )


def fingerprint(model: HearModel) -> str:
    """SHA-256 of the encoder's tensors and its configuration; the file format does not matter."""
    digest = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_same(where: str | Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ValueError if a setting differs; the message has its name and both values."""
    for name, option in COMPARED.items():
        if old.get(name) != new[name]:
            was, now = old.get(name), new[name]
            if name == "weights":
                was, now = (
                    f"{x.get('weights_name')} ({str(x.get(name))[:12]})" for x in (old, new)
                )
            raise ValueError(
                f"{printable(where)} was made with another setting of {option}: {was}, now {now}; "
                f"pass the old {option}, choose another output, or pass --overwrite"
            )
