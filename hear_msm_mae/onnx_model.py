"""Load ONNX files of `hear-msm-mae export-onnx`; ONNX Runtime runs the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints.native import Checkpoint
from .config import ModelConfig
from .extras import need
from .model import HearModel
from .onnx_export import FORMAT, FORMAT_VERSION
from .options import Options, resolve_options


def load_onnx(path: Path, given: Mapping[str, Any]) -> OnnxModel:
    """A model whose encoder is an ONNX file; see `hear_msm_mae.load_model`.

    Args:
        path: file of `onnx_export.export_onnx`.
        given: the options of `load_model`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is another file, it cannot fulfil an option, or onnxruntime is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"model_file_path {str(path)!r} does not exist")
    need("onnxruntime", "onnx", "ONNX files")
    try:
        encoder = OnnxEncoder(path.read_bytes())
        config = encoder.config
        if given.get("precision") == "auto":
            given = {**given, "precision": "float32"}
        options = resolve_options(config, given)
        if options.precision != "float32":
            raise ValueError(f"precision={options.precision!r} needs weights for PyTorch")
        held = config.depth - 1 if config.layer is None else config.layer % config.depth
        if options.layers != (held,):
            raise ValueError(
                f"it holds the embeddings of block {held} alone, not of {list(options.layers)}, "
                f"which layer={given.get('layer')} with mode={options.mode!r} means; export it "
                "again with --layer, or load weights for PyTorch"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return OnnxModel(config, options, encoder)


class OnnxEncoder(nn.Module):
    """A session of ONNX Runtime on the CPU, with as many threads as torch has.

    Args:
        content: of the file.

    Attributes:
        config: from the metadata of the file.

    Shape:
        - input: (b, f, t) float32 normalised log-mel, t a multiple of the patch width
        - output: (b, t columns, d) float32 frame embeddings

    Raises:
        ValueError: it is no ONNX file of this package.
    """

    sha256: Tensor

    def __init__(self, content: bytes) -> None:
        super().__init__()
        # `embed` identifies the weights by a hash over the encoder's tensors.
        digest = torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)
        self.register_buffer("sha256", digest)
        self._content = content
        self._start()

    def _start(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                self._content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes are not public
            raise ValueError(f"truncated or not an ONNX file ({error})") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        inputs = [x.name for x in self._session.get_inputs()]
        found = metadata.get("format"), metadata.get("format_version"), inputs
        if found != (FORMAT, FORMAT_VERSION, ["log_mel"]):
            raise ValueError("not an encoder that `hear-msm-mae export-onnx` of this release wrote")
        self.config = ModelConfig.from_json(metadata["config"])
        # Activations are quantised by the range of the whole tensor. Encoding one unit at a time
        # makes the embedding of a clip independent of its batch.
        self._alone = metadata["int8"] == "true"

    def forward(self, log_mel: Tensor) -> Tensor:
        """Encode units of equal length: (b, f, t) -> (b, t columns, d)."""
        if log_mel.requires_grad:
            raise ValueError("ONNX files give no gradients; load weights for PyTorch")
        units = np.ascontiguousarray(log_mel.numpy())
        parts = np.split(units, len(units)) if self._alone else [units]
        return torch.from_numpy(
            np.concatenate([self._session.run(None, {"log_mel": x})[0] for x in parts])
        )

    def attention(self, spectrogram: Tensor, block: int = -1) -> Tensor:
        """Raise ValueError: the file gives no attention weights."""
        raise ValueError("ONNX files give no attention maps; load weights for PyTorch")

    def train(self, mode: bool = True) -> OnnxEncoder:
        """Raise ValueError for training: the file has no weights that could be trained."""
        if mode:
            raise ValueError("ONNX files cannot be trained; load weights for PyTorch")
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and unpickled models start a new session."""
        return {name: value for name, value in vars(self).items() if name != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start()


class OnnxModel(HearModel):
    """`HearModel` with an `OnnxEncoder`; made by `load_onnx`."""

    def __init__(self, config: ModelConfig, options: Options, encoder: OnnxEncoder) -> None:
        super().__init__(Checkpoint(config, {}), options, encoder)

    def embed_units(self, spectrogram: Tensor) -> Tensor:
        """Encode units of equal length: (b, f, t) -> (b, t columns, d)."""
        embeddings: Tensor = self.encoder(spectrogram)
        factor = self.options.scale / self.config.embedding_scale  # the file gives them
        return embeddings if factor == 1.0 else embeddings * factor

    def checkpoint(self) -> Checkpoint:
        """Raise ValueError: no weights file can be made from a graph."""
        raise ValueError(
            "a model of an ONNX file can only embed; saving and reconstructing need the weights "
            "for PyTorch that it was made from"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> OnnxModel:
        """Follow moves, except to other devices."""
        device = fn(self.frontend.window).device
        if device.type != "cpu":
            raise ValueError(
                f"ONNX files run on the CPU here, not on {str(device)!r}; load weights for PyTorch"
            )
        super()._apply(fn, recurse)
        return self
