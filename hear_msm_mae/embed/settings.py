"""What decides how recordings become rows; stored with every output and compared."""

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
    """How recordings become rows; made by `settings_of`.

    Attributes:
        model: name of the model; weights: its fingerprint; weights_name: for people.
        mode, precision, layers, normalization, scene_pooling: options of the model that change
            embeddings; scene_pooling is None with timestamps.
        timestamps: embeddings over time, not one per clip; hop_ms: their distance.
        segment, overlap: windows, in seconds.
        dtype: of the stored embeddings.
    """

    model: str
    weights: str
    weights_name: str
    mode: str
    precision: str
    layers: str
    normalization: str
    scene_pooling: str | None
    timestamps: bool
    hop_ms: int | None
    segment: float | None
    overlap: float
    dtype: str

    def stored(self) -> dict[str, Any]:
        """What is written into outputs."""
        return dataclasses.asdict(self)


def settings_of(
    model: HearModel,
    weights_name: str,
    timestamps: bool = False,
    segment: float | None = None,
    overlap: float = 0.0,
    dtype: str = "float32",
) -> Settings:
    """Settings of a run with a model.

    Raises:
        ValueError: an unknown dtype.
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
    """Hash of the encoder and its configuration, whatever file they came from."""
    digest = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_same(where: str | Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ValueError, with the name of the setting and both values, when one differs."""
    for name, option in COMPARED.items():
        if old.get(name) != new[name]:
            was, now = (_shown(name, settings) for settings in (old, new))
            raise ValueError(
                f"{printable(where)} was made with another setting of {option}: {was}, now {now}; "
                "repeat the old one, choose another output, or pass --overwrite"
            )


def _shown(name: str, settings: Mapping[str, Any]) -> str:
    value = settings.get(name)
    if name == "weights" and value is not None:
        return f"{settings.get('weights_name')} ({str(value)[:12]})"
    return str(value)
