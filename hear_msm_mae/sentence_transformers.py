"""The first module of a `SentenceTransformer` that embeds audio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

try:
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError(
        "hear_msm_mae.sentence_transformers needs the package sentence-transformers, version 5.4 "
        "or later; run: pip install 'hear_msm_mae[sentence-transformers]'"
    ) from error

from .api import load_model
from .audio import waveform_of
from .files import replacing
from .model import HearModel
from .options import resolve_options
from .ragged import scenes

OPTIONS_FILE = "load_model.json"


class Audio(InputModule):  # type: ignore[misc]
    """Scene embeddings of recordings, each of any length, rate and number of channels.

    A folder that `model.save_pretrained(folder, transformers=True)` or `SentenceTransformer.save`
    wrote is loaded by `SentenceTransformer(folder, trust_remote_code=True)`, which asks for
    that word since the class is outside of sentence-transformers; `model_kwargs` are options of
    `load_model`.

    Args:
        model: from `hear_msm_mae.load_model`, with stored statistics.

    >>> from sentence_transformers import SentenceTransformer
    >>> model = SentenceTransformer(modules=[Audio(load_model())], device="cpu")
    >>> model.encode([np.zeros(16000, np.float32)]).shape[0]
    1
    """

    modalities = ["audio"]  # noqa: RUF012

    def __init__(self, model: HearModel) -> None:
        super().__init__()
        self.model = model

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Recordings as waveforms at the model's rate.

        Args:
            inputs: waveforms (n,) or (channels, n) at the model's rate as arrays or tensors, or
                what `hear_msm_mae.audio.waveform_of` takes: paths, {"array", "sampling_rate"},
                torchcodec's AudioDecoder.
            prompt: has no meaning for audio; None or "".
            options: of other modules.

        Returns:
            {"waveforms": [(n,), ...]}.

        Raises:
            FileNotFoundError, TypeError, ValueError: as `waveform_of`; or a prompt.
        """
        if prompt:
            raise ValueError("this model embeds audio alone, and takes no prompt")
        rate = self.model.sample_rate
        waveforms = []
        for number, item in enumerate(inputs):
            if isinstance(item, (np.ndarray, torch.Tensor)):
                item = (item, rate)
            waveform = waveform_of(item, sample_rate=rate, name=f"input {number}")
            waveforms.append(torch.from_numpy(waveform))
        return {"waveforms": waveforms}

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Add "sentence_embedding", (b, d) float32, to what `preprocess` gave."""
        return features | {"sentence_embedding": scenes(self.model, features["waveforms"])}

    def get_embedding_dimension(self) -> int:
        """Size of an embedding."""
        return self.model.scene_embedding_size

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Write the folder that `load` reads."""
        folder = self.model.save_pretrained(output_path, transformers=True)
        with replacing(folder / OPTIONS_FILE) as temporary:
            temporary.write_text(json.dumps(_options(self.model)), encoding="utf-8")

    @classmethod
    def load(
        cls, model_name_or_path: str, model_kwargs: dict[str, Any] | None = None, **where: Any
    ) -> Audio:
        """Read a folder, or a repository of the Hugging Face Hub.

        Args:
            model_name_or_path: folder, or "user/repo".
            model_kwargs: options of `load_model`, instead of those that were saved.
            where: see `sentence_transformers.base.modules.Module.load`.

        Raises:
            FileNotFoundError, ValueError: as `load_model`.
        """
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        found = {name: where[name] for name in names if name in where}
        folder = Path(cls.load_dir_path(model_name_or_path, **found))
        saved = {}
        if (folder / OPTIONS_FILE).is_file():
            saved = json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
        return cls(load_model(folder, **(saved | (model_kwargs or {}))))


def _options(model: HearModel) -> dict[str, Any]:
    """The options of `load_model` that give this model from its weights."""
    options, default = model.options, resolve_options(model.config, {}, model.device)
    names = ("mode", "precision", "scene_pooling", "timestamp_hop_ms")
    given = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in given.items() if value != getattr(default, name)}
    if (options.layers, options.scale) != (default.layers, default.scale):
        given["layer"] = list(options.layers)
    if options.mode == "paper":
        given["normalization"] = "stored"
    return given
