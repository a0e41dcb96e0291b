"""A classifier on embeddings as a file: `head.safetensors`, and `labels.json` for people."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..files import printable, replacing
from .fit import Linear, probabilities

FILE, LABELS = "head.safetensors", "labels.json"
FORMAT = "head 1"


@dataclasses.dataclass(frozen=True)
class Head:
    """A linear classifier that turns embeddings into probabilities of labels.

    Attributes:
        labels: names of the c labels.
        several: whether a recording may have several labels. If not, probabilities sum to 1.
        linear: weights and biases of the logits.
        temperature: divides the logits, so that probabilities are calibrated.
        settings: settings of the embeddings that it was trained on.
    """

    labels: list[str]
    several: bool
    linear: Linear
    temperature: float
    settings: dict[str, Any]

    def probabilities(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n, d) embeddings -> (n, c) probabilities."""
        logits = self.linear.logits(embeddings) / self.temperature
        return probabilities(logits, self.several).astype(np.float32)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the probabilities."""
        return hashlib.sha256(self._bytes()).hexdigest()

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write both files, the labels first, so that a head is never without them."""
        text = {"labels": self.labels, "several": self.several, **about, "model": self.settings}
        with replacing(folder / LABELS) as temporary:
            temporary.write_text(json.dumps(text, indent=1), "utf-8")
        with replacing(folder / FILE) as temporary:
            temporary.write_bytes(self._bytes())

    def _bytes(self) -> bytes:
        tensors = {
            "weight": self.linear.weight.astype(np.float32),
            "bias": self.linear.bias.astype(np.float32),
        }
        about = {
            "format": FORMAT,
            "labels": self.labels,
            "several": self.several,
            "temperature": self.temperature,
            "settings": self.settings,
        }
        # All metadata is one entry, because safetensors writes several entries in random order.
        return save(tensors, {"hear_msm_mae": json.dumps(about)})


def load_head(path: str | Path) -> Head:
    """Read a head.

    Args:
        path: `head.safetensors`, or the folder of `probe` or `finetune`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a head, or damaged.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not os.path.isfile(file):
        raise FileNotFoundError(
            f"no such file: {printable(file)}; 'hear-msm-mae probe LABELS --out DIR' writes a head"
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            about = json.loads((opened.metadata() or {})["hear_msm_mae"])
            weight, bias = opened.get_tensor("weight"), opened.get_tensor("bias")
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}")
        head = Head(
            [str(label) for label in about["labels"]],
            bool(about["several"]),
            Linear(weight.astype(np.float64), bias.astype(np.float64)),
            float(about["temperature"]),
            dict(about["settings"]),
        )
        if weight.ndim != 2 or bias.shape != (len(weight),) or len(head.labels) != len(weight):
            raise ValueError(f"{len(head.labels)} labels, weights of shape {weight.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all() and head.temperature > 0):
            raise ValueError("it holds NaN or infinite values")
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{printable(file)} is not a head of this package ({error}); "
            "'hear-msm-mae probe LABELS --out DIR' writes one"
        ) from error
    return head
