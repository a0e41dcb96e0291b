"""Export the encoder and, optionally, the front end as ONNX files.

`hear_msm_mae.load_model` loads the encoder's file. ONNX Runtime runs both without PyTorch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LOG_EPS, ModelConfig
from .extras import need
from .files import replacing
from .log_mel import LogMel
from .model import HearModel
from .onnx_int8 import smoothed, write_quantized

OPSET = 20  # the first version with the exact GELU
FORMAT = "hear_msm_mae"
FORMAT_VERSION = "1"


def export_onnx(
    model: HearModel, path: str | Path, int8: bool = False, log_mel: str | Path | None = None
) -> None:
    """Write the encoder of a model as an ONNX file.

    The input `log_mel` is (b, f, t) float32: normalised log-mel of b units of equal length, where t
    is a multiple of the patch width and at most one unit. The output `embeddings` is
    (b, t / patch width, d) float32, as of `HearModel.embed_units`. The metadata holds the
    configuration.

    Args:
        model: from `load_model`, on the CPU, in float32, with one layer. Its layer and statistics
            become the defaults of the file.
        path: file to write, `.onnx`.
        int8: store matrices in 8 bits, with a scale for each channel, but for those of the
            projection and the first block, which are stored in float16. Activations are quantised
            when the model runs.
        log_mel: file to write the front end to, `.onnx`: `waveform` (b, n) float32 -> `log_mel`
            (b, f, t), t = 1 + n // hop. The caller pads t to a multiple of the patch width.

    Raises:
        ValueError: a file name has another ending, the model cannot be exported, or a package is
            missing.
    """
    for file in (path, log_mel):
        if file is not None and Path(file).suffix.lower() != ".onnx":
            raise ValueError(f"the file to write must end in .onnx, got {str(file)!r}")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "onnx", "ONNX files")
    config = _config_of(model)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config.to_json(),
        "int8": str(int8).lower(),
    }
    batch, units = torch.export.Dim("b"), torch.zeros(2, config.n_mels, config.unit_frames)
    sizes: dict[int, Any] = {0: batch}
    if config.columns > 1:
        sizes[2] = config.patch_frames * torch.export.Dim("columns", max=config.columns)
    if int8:
        model = smoothed(model)
    graph = _graph(_Units(model), units, sizes, "log_mel", "embeddings")
    _write(graph, path, metadata, int8)
    if log_mel is not None:
        waveform, sizes = torch.zeros(2, config.sample_rate), {0: batch, 1: torch.export.Dim("n")}
        graph = _graph(FrontEnd(model.frontend), waveform, sizes, "waveform", "log_mel")
        _write(graph, log_mel, metadata, int8=False)


def _config_of(model: HearModel) -> ModelConfig:
    """The configuration with the options of the model as defaults."""
    options = model.options
    if len(options.layers) > 1 or options.precision != "float32" or model.device.type != "cpu":
        raise ValueError(
            "ONNX export needs a model that was loaded in float32, on the CPU, with one layer"
        )
    last = options.layers[0] == model.config.depth - 1
    layer = None if last else options.layers[0]
    config = model.checkpoint().config  # with statistics that were given as an option
    return dataclasses.replace(config, layer=layer, embedding_scale=options.scale)


def _graph(module: nn.Module, example: Tensor, sizes: Any, source: str, result: str) -> Any:
    """An onnx.ModelProto of a module with one input and one output."""
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[source],
            output_names=[result],
            dynamic_shapes=(sizes,),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _write(proto: Any, path: str | Path, metadata: dict[str, str], int8: bool) -> None:
    import onnx

    onnx.helper.set_model_props(proto, metadata)
    with replacing(path) as temporary:
        if int8:
            write_quantized(proto, temporary)
        else:
            onnx.save_model(proto, temporary)


class _Units(nn.Module):
    """The method `embed_units` as a module."""

    def __init__(self, model: HearModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.model.embed_units(log_mel)


class FrontEnd(nn.Module):
    """`LogMel` in operators of ONNX Runtime; the Fourier transform is a float64 matrix product.

    Shape:
        - input: (b, n) float32
        - output: (b, f, t) float32, t = 1 + n // hop
    """

    basis: Tensor

    def __init__(self, log_mel: LogMel) -> None:
        super().__init__()
        self.log_mel = log_mel
        window = log_mel.window.double().cpu()
        spectrum = torch.fft.rfft(torch.diag(window))  # (w, bins)
        basis = torch.cat([spectrum.real, spectrum.imag], dim=1)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """The normalised log-mel: (b, n) -> (b, f, t)."""
        size, hop = self.log_mel.window_length, self.log_mel.hop_length
        samples = waveform.shape[1]
        missing: Any = torch.sym_max(size - samples, 0)
        x = F.pad(waveform, (0, missing))
        x = F.pad(x, (size // 2, size // 2), mode="reflect").double()
        first = hop * torch.arange(1 + samples // hop)  # sample of each frame
        frames = x[:, first[:, None] + torch.arange(size)]  # (b, t, w)
        real, imaginary = (frames @ self.basis).float().square().chunk(2, dim=2)
        log_mel = ((real + imaginary) @ self.log_mel.mel_basis + LOG_EPS).log()  # (b, t, f)
        return self.log_mel.normalize(log_mel.transpose(1, 2))
