"""Check the tensors of a checkpoint against its configuration before a model is built.

A configuration of a few bytes can describe a model of any size, which would fill the memory.
Therefore the names and shapes of the tensors in the file are compared with it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..checks import FLOAT_TYPES
from ..config import ModelConfig

ENCODER, DECODER = "encoder.", "decoder."

# Trained weights are below about ten. If all are 1e4, three consecutive matrices and the square in
# LayerNorm overflow float32, and embeddings are NaN. With 1e3 they are finite.
MAX_WEIGHT = 1e3

_Shapes = Iterator[tuple[str, tuple[int, ...]]]


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Check that every tensor is dense, has its own memory and a float type, and is finite.

    Raises:
        ValueError: a tensor is not like this; the message names it.
    """
    for name, tensor in tensors.items():
        check_dense(name, tensor)
        if tensor.dtype not in FLOAT_TYPES:
            raise ValueError(f"tensor {name!r} is {tensor.dtype}, expected floating-point numbers")
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors.values()}
    if sum(map(_size, tensors.values())) > sum(s.nbytes() for s in storages.values()):
        raise ValueError("the tensors share their values, so that a copy could be of any size")
    for name, tensor in tensors.items():
        if not tensor.numel():
            continue
        low, high = torch.stack(tensor.detach().aminmax()).tolist()  # NaN if any value is
        if not (low >= -MAX_WEIGHT and high <= MAX_WEIGHT):
            raise ValueError(
                f"tensor {name!r} has values from {low:.4g} to {high:.4g}, expected finite values "
                f"within {MAX_WEIGHT:g}: the weights are damaged, or their training diverged"
            )


def check_dense(name: str, tensor: Tensor) -> None:
    """Check that all values of the tensor are in memory.

    Raises:
        ValueError: it is sparse, nested or quantised, has no values (meta), or repeats values by a
            stride of zero, so that a copy could have any size.
    """
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"tensor {name!r} is sparse, nested or quantised, expected a dense one")
    if tensor.device.type == "meta":
        raise ValueError(f"tensor {name!r} is on the meta device, where tensors have no values")
    if _size(tensor) > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"tensor {name!r} of shape {tuple(tensor.shape)} has fewer values than that (it was "
            "saved as an expanded view)"
        )


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()  # bytes


def check_layout(part: str, tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Check that the tensors below a prefix are exactly those of the configuration.

    Args:
        part: "encoder." or "decoder.".
        tensors: named as in `Checkpoint`; tensors with other prefixes are ignored.
        config: the configuration, which may be hostile.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape; the message names it.
    """
    left: dict[str, object] = {
        name: tuple(t.shape) for name, t in tensors.items() if name.startswith(part)
    }
    problem = f"the tensors do not fit the configuration {config.name}"
    for name, shape in expected_shapes(part, config):
        found = left.pop(part + name, "absent")
        if found != shape:
            raise ValueError(f"{problem}: {part}{name} should be {shape}, is {found}")
    for name, found in left.items():
        raise ValueError(f"{problem}: {name} should be absent, is {found}")


def expected_shapes(part: str, config: ModelConfig) -> _Shapes:
    """Names (without the prefix) and shapes of the tensors of "encoder." or "decoder."."""
    if part == ENCODER:
        width, depth = config.width, config.depth
        yield "patch_embed.weight", (width, config.patch_area)
        yield "patch_embed.bias", (width,)
        if config.cls_token:
            yield "cls_token", (1, 1, width)
    else:
        width, depth = config.decoder_width, config.decoder_depth
        yield "embed.weight", (width, config.width)
        yield "embed.bias", (width,)
        yield "mask_token", (1, 1, width)
        yield "predict.weight", (config.patch_area, width)
        yield "predict.bias", (config.patch_area,)
    yield "norm.weight", (width,)
    yield "norm.bias", (width,)
    for block in range(depth):
        for name, shape in _block(width, int(width * config.mlp_ratio)):
            yield f"blocks.{block}.{name}", shape


def _block(width: int, hidden: int) -> _Shapes:
    for norm in ("norm1", "norm2"):
        yield f"{norm}.weight", (width,)
        yield f"{norm}.bias", (width,)
    yield "attn.qkv.weight", (3 * width, width)
    yield "attn.qkv.q_bias", (width,)
    yield "attn.qkv.v_bias", (width,)
    for layer, outputs, inputs in (
        ("attn.proj", width, width),
        ("mlp.fc1", hidden, width),
        ("mlp.fc2", width, hidden),
    ):
        yield f"{layer}.weight", (outputs, inputs)
        yield f"{layer}.bias", (outputs,)
