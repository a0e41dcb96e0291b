"""What training costs and what the machine can do: matrix products per step and per second."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ..config import ModelConfig

PEAK_SIZE = 2048  # square matrices whose product measures the machine's peak
PEAK_SECONDS = 2.0  # after which it is not repeated any more
CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


def training_flops(config: ModelConfig, mask_ratio: float) -> float:
    """Floating-point operations of matrix products for one crop, forward and backward."""
    patches = config.rows * config.columns
    visible = max(1, int(patches * (1 - mask_ratio)))
    extra = int(config.cls_token)

    def blocks(tokens: int, width: int, depth: int) -> float:
        matrices = (4 + 2 * config.mlp_ratio) * width * width * tokens
        attention = 2 * tokens * tokens * width
        return 2 * depth * (matrices + attention)

    forward = blocks(visible + extra, config.width, config.depth)
    forward += blocks(patches + extra, config.decoder_width, config.decoder_depth)
    forward += 2 * (visible + extra) * config.width * config.decoder_width
    forward += 2 * (patches - visible) * config.decoder_width * config.patch_area
    embedding = 2 * visible * config.patch_area * config.width  # its input needs no gradient
    return 3 * forward + 2 * embedding


def matmul_peak(device: torch.device, precision: str, repeats: int = 6) -> float:
    """Floating-point operations per second of a large matrix product, the best of a few."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones(PEAK_SIZE, PEAK_SIZE, device=device, dtype=dtype)
    best, begin = float("inf"), time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
        # A CPU without bf16 takes most of a minute for one.
        if time.perf_counter() - begin > PEAK_SECONDS:
            break
    return 2 * PEAK_SIZE**3 / best


def faster_precision(accelerator: str) -> str:
    """The precision that `auto` stands for: bf16 on hardware that computes with it, else fp32.

    By what the hardware says of itself, so that the processes of a run need not agree on a
    measurement. Without such units bf16 takes twice to a hundred times as long as fp32 on a CPU.

    Args:
        accelerator: of the settings.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if BF16_FLAGS & cpu_flags() else "fp32"


def cpu_flags() -> set[str]:
    """What the CPU can do, as Linux names it on x86; empty where that is not known."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}
