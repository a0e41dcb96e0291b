"""What training costs and what the machine can do: matrix products per step and per second."""

from __future__ import annotations

import time

import torch

from ..config import ModelConfig

PEAK_SIZE = 2048  # square matrices whose product measures the machine's peak
PEAK_SECONDS = 2.0  # after which it is not repeated any more
CHOICE_SIZE = 512  # smaller: a CPU without bf16 takes most of a minute for one of PEAK_SIZE


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


def matmul_peak(
    device: torch.device, precision: str, repeats: int = 6, size: int | None = None
) -> float:
    """Floating-point operations per second of a large matrix product, the best of a few."""
    size = size or PEAK_SIZE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    best, begin = float("inf"), time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begin > PEAK_SECONDS:
            break
    return 2 * size**3 / best


def faster_precision(accelerator: str) -> str:
    """The precision that `auto` stands for: bf16 where its matrix products are the faster ones.

    Args:
        accelerator: of the settings; on `mps`, where bf16 is incomplete, it is always fp32.
    """
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return "fp32"
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    bf16, fp32 = (matmul_peak(device, p, size=CHOICE_SIZE) for p in ("bf16", "fp32"))
    return "bf16" if bf16 > fp32 else "fp32"
