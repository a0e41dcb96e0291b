"""An optimiser step that does not wait for the device; on a GPU it is replayed as a CUDA graph."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

log = logging.getLogger(__name__)

EAGER_STEPS = 3  # before a CUDA graph is recorded: kernels are compiled and memory is allocated


class Report(NamedTuple):
    """Loss, norm and counters of bad steps, as of the last step."""

    loss: float  # of the global batch
    norm: float  # of the gradient, before it is scaled down
    bad_in_a_row: int  # steps that were skipped since the last good one
    worst: int  # the most that were skipped in a row since the last report
    skipped: int  # steps that were skipped because loss or gradient was not finite


class Stepper:
    """Computes losses and gradients and updates the weights.

    A step whose loss or gradient is not finite changes only the counters. The counters stay on the
    device, so that only `report` waits for it.

    Args:
        settings: `Settings` of pretraining, or other ones with `clip_norm`, `precision`, `beta1`,
            `beta2` and `cuda_graph`.
        fabric: Lightning Fabric, which exchanges gradients between processes.
        model: model on the device of the fabric; its `forward` returns the loss.
        groups: parameter groups for AdamW, see `parameter_groups`. `lr_scale` of a group is a
            factor of its learning rate.
        arguments: function that makes the model's arguments from a batch.
        skipped, bad_in_a_row: initial values of the counters.
    """

    def __init__(
        self,
        settings: Any,
        fabric: Fabric,
        model: nn.Module,
        groups: list[dict[str, Any]],
        arguments: Callable[[Any], tuple[Any, ...]],
        skipped: int = 0,
        bad_in_a_row: int = 0,
    ) -> None:
        self.settings, self.fabric, self.arguments = settings, fabric, arguments
        self.engine = fabric.setup_module(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        single = fabric.device.type == "cuda" and fabric.world_size == 1
        record = single and settings.cuda_graph is not False
        # A tensor for each group: they may have different learning rates.
        rates = [torch.zeros((), device=fabric.device) if record else 0.0 for _ in groups]
        self.optimizer = torch.optim.AdamW(
            [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)],
            betas=(settings.beta1, settings.beta2),
            fused=fabric.device.type in ("cpu", "cuda"),
            capturable=record,
        )
        counters = [0.0, 0.0, bad_in_a_row, bad_in_a_row, skipped]
        self.counters = torch.tensor(counters, device=fabric.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Any] = []
        self.stream = torch.cuda.Stream(fabric.device) if record else None
        self.eager_steps = 0

    def __call__(self, parts: Sequence[Any], lr: float) -> None:
        """One step: gradients of the loss over the global batch, and the update.

        Args:
            parts: this process's share of the batch, on the device.
            lr: learning rate.
        """
        for group in self.optimizer.param_groups:
            scaled = lr * group.get("lr_scale", 1.0)
            # A recorded step reads the rate from a tensor.
            group["lr"] = group["lr"].fill_(scaled) if isinstance(group["lr"], Tensor) else scaled
        if self.stream is None:
            self._compute(parts)
        elif self.eager_steps < EAGER_STEPS:
            self.eager_steps += 1
            current = torch.cuda.current_stream(self.fabric.device)
            self.stream.wait_stream(current)  # the one that the graph is recorded on
            with torch.cuda.stream(self.stream):
                self._compute(parts)
            current.wait_stream(self.stream)
        else:
            self._replay(parts)

    def report(self) -> Report:
        """The counters; waits until the device has computed the last step."""
        loss, norm, *counts = self.counters.tolist()
        self.counters[3] = self.counters[2]
        return Report(loss, norm, *map(int, counts))

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the state of an optimiser, also from other hardware."""
        fresh = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, new in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update({key: new[key] for key in ("lr", "fused", "capturable", "foreach")})

    def _replay(self, parts: Sequence[Any]) -> None:
        """Replay a step with these inputs; the first time it is recorded."""
        if self.graph is None:
            self.inputs = [part.map(torch.clone) for part in parts]
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads may continue: one of them reserves page-locked memory for batches.
                with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                    self._compute(self.inputs)  # only recorded
            except RuntimeError as error:
                log.warning("a step cannot be recorded as a CUDA graph and stays eager: %s", error)
                self.stream, self.inputs = None, []
                self._compute(parts)
                return
            self.graph = graph
        for there, part in zip(self.inputs, parts, strict=True):
            for old, new in zip(there, part, strict=True):
                if old is not None:
                    old.copy_(new)
        self.graph.replay()

    def _compute(self, parts: Sequence[Any]) -> None:
        s, fabric = self.settings, self.fabric
        # Gradients are cleared first, because they must be allocated while a graph is recorded.
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1  # when gradients are exchanged between processes
            with fabric.no_backward_sync(self.engine, enabled=not last):
                arguments = self.arguments(part)
                with autocast(s, fabric.device):
                    loss = self.engine(*arguments)
                fabric.backward(loss / len(parts))
            losses.append(loss.detach())
        loss = torch.stack(losses).mean()
        if fabric.world_size > 1:
            torch.distributed.all_reduce(loss)  # Fabric's waits for the device
            loss = loss / fabric.world_size
        # Gradients are averaged over the processes, so all processes compute the same norm.
        limit = s.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        bad = ~(loss.isfinite() & norm.isfinite())
        if self.optimizer.defaults["fused"]:
            # If this is 1, the kernel changes neither weights nor moments, as with a GradScaler.
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()
        _, _, in_a_row, worst, skipped = self.counters.unbind()
        in_a_row = (in_a_row + 1) * bad
        counts = (in_a_row, torch.maximum(worst, in_a_row), skipped + bad)
        self.counters.copy_(torch.stack([loss, norm, *counts]))


def autocast(settings: Any, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context manager that sets the `precision` of the settings."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")


def parameter_groups(
    model: nn.Module, weight_decay: float, scale_of: Callable[[str], float] = lambda name: 1.0
) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, norms and tokens without.

    Args:
        scale_of: factor of the learning rate by the name of a parameter; each has its groups.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    scales = dict.fromkeys(scale_of(n) for n, _ in named)

    def decays(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim >= 2 and not name.endswith("_token")

    return [
        {
            "params": [p for n, p in named if scale_of(n) == scale and decays(n, p) == decayed],
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": scale,
        }
        for scale in scales
        for decayed in (True, False)
    ]
