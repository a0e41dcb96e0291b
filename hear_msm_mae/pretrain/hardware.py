"""Hardware of a run: processes, memory, precision, and peak speed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from torch import nn

from ..config import ModelConfig
from ..corpus.bank import Bank
from .settings import Settings

PEAK_SIZE = 2048  # size of the square matrices that measure the peak speed
PEAK_SECONDS = 2.0  # time limit of the repetitions
CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
# Share of a GPU's free memory that the corpus may take.
BANK_SHARE = 0.5

# glibc's mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROW_BYTES = 2**28  # the heap grows by so much at once


def launch(settings: Any) -> Fabric:
    """Lightning Fabric. Torchrun starts the processes, or else Fabric itself.

    Args:
        settings: `Settings` of pretraining, or other ones with `accelerator`, `devices`, `nodes`.

    Raises:
        ValueError: the hardware is not available.
    """
    devices, nodes = settings.devices, settings.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    several = nodes > 1 or (isinstance(devices, int) and devices > 1)
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if several else "auto",
        )
    except (RuntimeError, ValueError, TypeError, ImportError) as error:
        raise ValueError(
            f"accelerator={settings.accelerator} with devices={settings.devices} cannot be used "
            f"here: {error}"
        ) from error
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


def place_bank(bank: Bank, wish: str, device: torch.device) -> Bank:
    """The bank in the GPU's memory, or memory-mapped on the host, by the setting `bank`.

    Raises:
        ValueError: with bank=device it does not fit into the memory.
    """
    if device.type != "cuda" or wish == "host":
        return bank
    size = bank.frames.nbytes
    free = torch.cuda.mem_get_info(device)[0]
    if size <= BANK_SHARE * free:
        return bank.to(device)
    if wish == "device":
        raise ValueError(
            f"bank=device, but the corpus has {size / 1e9:.1f} GB and the GPU has "
            f"{free / 1e9:.1f} GB free, of which the corpus may take {BANK_SHARE:.0%}; set "
            "bank=host"
        )
    return bank


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory.

    By default glibc maps new memory for every large tensor, which the kernel has to clear: 84 000
    page faults per step of the small model, a fifth of its processor time (measured by
    benchmarks/pretrain.py).
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, _GROW_BYTES)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers, which are slow, to zero in the block."""
    flushed_before = float(torch.tensor(1e-39) * 1) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


def set_attention(model: nn.Module, fused: bool) -> None:
    """Select fused attention or plain matrix products, which give the same results.

    The backward pass of torch's fused attention is slow in bf16 on the CPU: with plain products
    it takes a fifth of the time at 17 and 66 tokens, two thirds at 261.
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", fused)  # noqa: B010 (mypy takes it for a tensor)


def compile_blocks(model: nn.Module) -> None:
    """Compile the transformer blocks; they share their code, so this takes seconds."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                block.compile(dynamic=False)


# ---------------------------------------------------------------------------------------------
# Speed
# ---------------------------------------------------------------------------------------------
def block_flops(tokens: int, width: int, depth: int, mlp_ratio: float) -> float:
    """Floating-point operations of `depth` blocks' matrix products, forward, for one sequence."""
    matrices = (4 + 2 * mlp_ratio) * width * width * tokens
    attention = 2 * tokens * tokens * width
    return 2 * depth * (matrices + attention)


def training_flops(settings: Settings, teacher: ModelConfig | None = None) -> float:
    """Floating-point operations of matrix products for one sample, forward and backward."""
    config = settings.model
    patches = config.rows * config.columns
    visible = max(1, int(patches * (1 - settings.mask_ratio)))
    extra = int(config.cls_token)

    ratio = config.mlp_ratio
    forward = block_flops(visible + extra, config.width, config.depth, ratio)
    forward += block_flops(patches + extra, config.decoder_width, config.decoder_depth, ratio)
    forward += 2 * (visible + extra) * config.width * config.decoder_width
    outputs = config.patch_area if teacher is None or settings.pixel_weight else 0
    outputs += teacher.width if teacher else 0
    forward += 2 * (patches - visible) * config.decoder_width * outputs
    embedding = 2 * visible * config.patch_area * config.width  # its input needs no gradient
    total = 3 * forward + 2 * embedding
    if teacher is not None:  # forward only, once for all masks of a crop
        tokens = patches + int(teacher.cls_token)
        once = block_flops(tokens, teacher.width, teacher.depth, teacher.mlp_ratio)
        once += 2 * patches * config.patch_area * teacher.width
        total += once / settings.masks
    return total


def matmul_peak(device: torch.device, precision: str, repeats: int = 6) -> float:
    """Floating-point operations per second of a large matrix product (the best of several)."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = PEAK_SIZE * (4 if device.type == "cuda" else 1)
    a = torch.ones(size, size, device=device, dtype=dtype)
    best, begin = float("inf"), time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
        # A CPU without bf16 takes most of a minute for one.
        if time.perf_counter() - begin > PEAK_SECONDS:
            break
    return 2 * size**3 / best


def faster_precision(accelerator: str) -> Literal["bf16", "fp32"]:
    """The precision of `auto`: bf16 if the hardware has instructions for it, else fp32.

    It is not measured, so that all processes of a run choose the same. On a CPU without such
    instructions bf16 takes 2 to 100 times as long as fp32.

    Args:
        accelerator: of the settings.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if BF16_FLAGS & cpu_flags() else "fp32"


def cpu_flags() -> set[str]:
    """Flags of the CPU, as Linux names them on x86; empty if unknown."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}
