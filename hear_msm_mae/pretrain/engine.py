"""What a run computes with: processes, the model with its weights, the optimiser."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from ..checkpoints.native import Checkpoint, load_checkpoint
from ..config import ModelConfig
from ..mae import MaskedAutoencoder
from .settings import PRECISIONS, Settings

log = logging.getLogger(__name__)

STATISTICS_APART = 0.1  # in standard deviations: weights on such input are not what they were

# glibc's mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROW_BYTES = 2**28  # the heap grows by so much at once


class _Autocast(MixedPrecision):  # type: ignore[misc]  # Lightning is not typed
    """Lightning's, but the model gets its float32 input: the targets are made from it."""

    def convert_input(self, data: Any) -> Any:
        return data


def launch(settings: Settings) -> Fabric:
    """The engine; processes are started by torchrun or `fabric run`, or else by Fabric itself."""
    options: dict[str, Any] = {"precision": PRECISIONS[settings.precision]}
    if settings.precision == "bf16":
        on_cpu = settings.accelerator == "cpu" or not torch.cuda.is_available()
        options = {"plugins": [_Autocast("bf16-mixed", "cpu" if on_cpu else "cuda")]}
    by_cli = "LT_CLI_USED" in os.environ
    if not by_cli:  # `fabric run` has its own options for these
        processes = settings.devices
        nodes = settings.nodes
        if "TORCHELASTIC_RUN_ID" in os.environ:
            processes = os.environ["LOCAL_WORLD_SIZE"]
            nodes = int(os.environ["WORLD_SIZE"]) // int(processes)
        devices: Any = int(processes) if processes.isdigit() else processes
        several = nodes > 1 or (isinstance(devices, int) and devices > 1)
        options |= {"accelerator": settings.accelerator, "devices": devices, "num_nodes": nodes}
        options["strategy"] = "ddp" if several else "auto"
    fabric = Fabric(**options)
    if not by_cli:  # else launched by its constructor
        fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


def keep_freed_memory() -> bool:
    """Tell glibc not to return freed memory to the system; whether it understood.

    By default it maps every large tensor anew, and the kernel clears its pages again: 84 000 page
    faults per step of the small model, a fifth of the step's processor time (measured by
    benchmarks/pretrain.py).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wishes = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _GROW_BYTES))
    return sum(mallopt(*wish) for wish in wishes) == len(wishes)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Denormal numbers are slow and of no use in training; the caller's choice is put back."""
    flushed_before = float(torch.tensor(1e-39) * 1) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


def make_model(
    config: ModelConfig, settings: Settings, resumed: dict[str, Tensor] | None
) -> MaskedAutoencoder:
    """The model with its weights: resumed, from `init_from`, or random by the seed.

    Raises:
        FileNotFoundError, ValueError: `init_from` cannot be read or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = MaskedAutoencoder(config)
    if resumed is not None:
        model.load_state_dict(resumed)
    elif settings.init_from is not None:
        weights = load_checkpoint(settings.init_from)
        _check_same_model(weights, config, settings.init_from)
        try:
            weights.load_into(model.encoder)
            if weights.has_decoder:
                weights.load_into(model.decoder, "decoder.")
        except ValueError as error:
            raise ValueError(f"init_from {settings.init_from}: {error}") from error
    return model


def _check_same_model(weights: Checkpoint, config: ModelConfig, source: str) -> None:
    """What shapes do not tell: the weights would load, and mean something else."""
    names = ["heads", "patch_mels", "patch_frames", "cls_token"]
    if weights.has_decoder:
        names += ["decoder_heads", "decoder_positions", "norm_pixels"]
    old, new = weights.config, config
    changed = [
        f"{name} was {getattr(old, name)!r} and is now {getattr(new, name)!r}"
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
    if changed:
        raise ValueError(f"init_from {source}: {'; '.join(changed)}. Set it as it was")
    far = abs(old.norm_mean - new.norm_mean) / new.norm_std + abs(old.norm_std / new.norm_std - 1)
    if far > STATISTICS_APART:
        log.warning(
            "init_from %s: the statistics of the log-mel values were mean %.2f, std %.2f and are "
            "those of the corpus now, mean %.2f, std %.2f",
            source,
            *(old.norm_mean, old.norm_std, new.norm_mean, new.norm_std),
        )


def set_attention(model: nn.Module, fused: bool) -> None:
    """Use fused attention or plain matrix products, which compute the same.

    The backward pass of torch's fused attention is slow in bf16 on the CPU: with plain products
    it takes a fifth of the time at 17 and 66 tokens, two thirds at 261.
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", fused)  # noqa: B010 (mypy takes it for a tensor)


def make_optimizer(model: nn.Module, settings: Settings, device: torch.device) -> torch.optim.AdamW:
    """AdamW, in one fused kernel where there is one; the learning rate is set at every step."""
    return torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        fused=device.type in ("cpu", "cuda"),
    )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, norms and tokens without."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]

    def decays(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim >= 2 and not name.endswith("_token")

    return [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
