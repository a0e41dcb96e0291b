"""Linear layers that are faster on a CPU when no gradients are needed.

oneDNN multiplies fastest with a weight in a packed layout. `torch.nn.functional.linear` packs the
weight in every call, which takes as long as the product for a short clip. The layers here keep the
packed weight in addition to the weight, which doubles their memory.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SAMPLES = 64  # values of a weight that are compared to notice changes


class _Packed(NamedTuple):
    weight: Tensor
    # The original tensor is kept, so that no other tensor gets its memory address.
    origin: Tensor
    version: int
    sample: Tensor

    def is_current(self, weight: Tensor) -> bool:
        """Whether `weight` is unchanged since it was packed.

        Torch counts changes in place, but not those through `weight.data` or by another process. A
        sample of the values shows these.
        """
        return (
            weight.data_ptr() == self.origin.data_ptr()
            and weight._version == self.version
            and torch.equal(_sample(weight), self.sample)
        )


def _sample(weight: Tensor) -> Tensor:
    return weight.detach().flatten()[:: max(1, weight.numel() // _SAMPLES)]


@functools.cache
def _has_kernels() -> bool:
    """Whether this torch on this CPU has the operations for packed weights, bfloat16 included."""
    operations = ("_linear_pointwise", "_reorder_linear_weight")
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in operations)
    )


class PackedProduct(nn.Module):
    """Base of modules that multiply with `self.weight`, (out, in)."""

    weight: Tensor
    _packed: _Packed | None = None

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply with the packed weight where possible: (..., in) -> (..., out)."""
        if not self._can_pack(x):
            return F.linear(x, self.weight, bias)
        packed = self._packed
        if packed is None or not packed.is_current(self.weight):
            origin = self.weight.detach()
            packed = self._packed = _Packed(
                torch.ops.mkldnn._reorder_linear_weight(origin),
                origin,
                origin._version,
                _sample(origin).clone(),
            )
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed.weight, bias, "none", [], "")
        return result

    def _can_pack(self, x: Tensor) -> bool:
        weight = self.weight
        return (
            not torch.compiler.is_compiling()  # the compiler does not support the other checks
            and not torch.is_grad_enabled()
            and x.device.type == weight.device.type == "cpu"
            and x.dtype == weight.dtype
            and x.dtype in (torch.float32, torch.bfloat16)
            and type(x) is Tensor  # false in torch's tracers
            and not weight.is_inference()  # torch does not count changes of these
            and not torch.is_autocast_enabled("cpu")
            and not torch._C._is_tracing()
            and x.numel() > 0
            and _has_kernels()
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Drop the packed weight when the module is moved or cast."""
        self._packed = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the packed weight out; it cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name != "_packed"}


class Linear(PackedProduct, nn.Linear):
    """`torch.nn.Linear` with a packed weight: (..., in) -> (..., out)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.product(input, self.bias)
