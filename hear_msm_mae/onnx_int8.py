"""Matrices of 8 bits in ONNX files, so that embeddings stay close to those of float32.

`smoothed` changes the model before it is exported, `write_quantized` the graph afterwards.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .model import HearModel
from .packed import PackedProduct

_FLOAT_MATRICES = 5  # of the patch projection and the first block: qkv, proj, fc1, fc2
_SMALLEST = 1e-5  # keeps the factors of channels without values finite


@torch.no_grad()
def smoothed(model: HearModel) -> HearModel:
    """A copy with the same embeddings, which lose less when activations are quantised.

    A few channels have large values, which leave few of the 256 levels to the others. Therefore
    LayerNorm divides each channel by a factor, and the next matrix multiplies it by this factor, so
    that both have equal ranges (SmoothQuant, arXiv 2211.10438, equation 4 with alpha = 0.5).
    Recordings are not needed, because noise has the same large channels.
    """
    model = copy.deepcopy(model)
    encoder, config = model.encoder, model.config
    blocks: Any = encoder.blocks
    seeded = torch.Generator().manual_seed(0)
    noise = torch.randn(8, config.n_mels, config.unit_frames, generator=seeded)
    x = encoder._embed(noise, None)
    for block in blocks:
        _smooth(block.norm1, block.attn.qkv, x)
        _smooth(block.norm2, block.mlp.fc1, x + block.attn(block.norm1(x)))
        x = block(x)
    return model


def _smooth(norm: nn.LayerNorm, product: PackedProduct, x: Tensor) -> None:
    """Give each channel of `norm(x)` the range of its column in the matrix: x is (b, l, d)."""
    activations = norm(x).abs().amax((0, 1)).clamp(min=_SMALLEST)  # (d,)
    weights = product.weight.abs().amax(0).clamp(min=_SMALLEST)  # (d,)
    factor = (activations / weights).sqrt()
    norm.weight.div_(factor)
    norm.bias.div_(factor)
    product.weight.mul_(factor)


def write_quantized(proto: Any, path: Path) -> None:
    """Write an onnx.ModelProto with matrices of 8 bits and a scale for each of their channels.

    The matrices of the patch projection and the first block get 16 bits. Patches of digital silence
    differ by their position alone, and the first block amplifies this small difference. Activations
    of 8 bits in this block change the embedding of silence by half of its length.
    """
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import quantize_dynamic

    matrices = {tensor.name: tensor for tensor in proto.graph.initializer}
    products = [n.input[1] for n in proto.graph.node if n.op_type == "MatMul"]
    first = [name for name in products if name in matrices][:_FLOAT_MATRICES]
    for name in first:
        # quantize_dynamic leaves these products alone, since their matrix comes from a cast.
        half = numpy_helper.to_array(matrices[name]).astype("float16")
        matrices[name].CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        cast = helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)
        proto.graph.node.insert(0, cast)
    # onnxruntime warns if nobody has prepared the graph, which torch's exporter has done.
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    # Matrices use 7 bits, because CPUs with AVX2 but without VNNI add pairs of products in 16 bits,
    # which 8 bits can overflow. The error of embeddings grows by a tenth.
    quantize_dynamic(proto, path, per_channel=True, reduce_range=True)
