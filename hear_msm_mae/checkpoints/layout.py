"""Check the tensors of a checkpoint against its configuration before a model is built.

A configuration of a few bytes can describe a model of any size, which would fill the memory.
Therefore the tensors in the file are compared first with those of a model without values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ..checks import FLOAT_TYPES
from ..config import ModelConfig
from ..encoder import Encoder
from ..mae import Decoder

ENCODER, DECODER = "encoder.", "decoder."

# Trained weights are below about ten. If all are 1e4, three consecutive matrices and the square in
# LayerNorm overflow float32, and embeddings are NaN. With 1e3 they are finite.
MAX_WEIGHT = 1e3


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
    problem = f"the tensors do not fit the configuration {config.name}"
    values = sum(tensor.numel() for tensor in tensors.values())
    sizes = {name: getattr(config, name) for name in ("patch_area", "width", "decoder_width")}
    for name, size in sizes.items():
        if size > values:
            raise ValueError(f"{problem}: {name} is {size}, but the file has {values} values")
    # If more blocks are named, the first of those that are absent is one of these.
    most = len(tensors)
    depths = min(config.depth, most), min(config.decoder_depth, most)
    config = dataclasses.replace(config, depth=depths[0], decoder_depth=depths[1], layer=None)
    with torch.device("meta"):  # no memory is allocated
        module = (Encoder if part == ENCODER else Decoder)(config)
    expected = {part + name: tuple(t.shape) for name, t in module.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith(part)}
    for name in [*expected, *found]:
        wanted, shape = expected.get(name, "absent"), found.get(name, "absent")
        if shape != wanted:
            raise ValueError(f"{problem}: {name} should be {wanted}, is {shape}")
