"""Speed and memory of a pretraining step: ratios against a plain loop, measured in one run.

    python benchmarks/pretrain.py [--size base] [--batch 64] [--rounds 5]

Every variant trains the same model on the same crops. The variants take turns, so that a change
of the machine's load meets all of them; ratios are of the medians. Peak memory is that of a
process of its own per variant. Writes a Markdown table to standard output.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hear_msm_mae.encoder import patchify
from hear_msm_mae.pretrain.engine import parameter_groups, set_attention
from hear_msm_mae.pretrain.mae import Mask, MaskedAutoencoder
from hear_msm_mae.pretrain.sampling import CropSampler, StepDataset, split_order
from hear_msm_mae.pretrain.settings import Settings, from_dict
from hear_msm_mae.pretrain.watch import matmul_peak, training_flops


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to compute the same step."""

    name: str
    bf16: bool
    fused_attention: bool
    masked_only: bool
    fused_optimizer: bool


VARIANTS = [
    Variant("plain: float32, explicit attention, all patches", False, False, False, False),
    Variant("float32, SDPA", False, True, False, False),
    Variant("bf16, SDPA", True, True, False, False),
    Variant("bf16, matrix products as attention", True, False, False, False),
    Variant("+ loss on gathered masked tokens", True, False, True, False),
    Variant("+ fused AdamW (what `pretrain` does on a CPU)", True, False, True, True),
]


class Trainer:
    """The model of one variant, and its step."""

    def __init__(self, variant: Variant, settings: Settings) -> None:
        torch.manual_seed(0)
        self.variant = variant
        self.model = MaskedAutoencoder(settings.model_config())
        set_attention(self.model, variant.fused_attention)
        groups = parameter_groups(self.model, settings.weight_decay)
        fused = variant.fused_optimizer
        self.optimizer = torch.optim.AdamW(
            groups, lr=1e-4, betas=(0.9, 0.95), fused=fused, foreach=False
        )

    def step(self, spectrogram: Tensor, mask: Mask) -> float:
        """One optimiser step; returns its seconds."""
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.variant.bf16):
            if self.variant.masked_only:
                loss = self.model(spectrogram, mask)
            else:
                loss = loss_over_all_patches(self.model, spectrogram, mask)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def loss_over_all_patches(model: MaskedAutoencoder, spectrogram: Tensor, mask: Mask) -> Tensor:
    """The usual formulation: predict every patch, then weigh the errors by the mask."""
    prediction = model.predict(spectrogram, mask).float()
    errors = (prediction - patchify(spectrogram, model.config)).square().mean(-1)  # (b, l)
    hidden = torch.zeros_like(errors).scatter(1, mask.masked, 1.0)
    return (errors * hidden).sum() / hidden.sum()


class DiskCorpus:
    """Half an hour of noise in one memory-mapped file, laid out as `prepare` does."""

    mean, std, hours, n_mels, fingerprint = -8.0, 4.0, 0.5, 80, "0" * 64

    def __init__(self, folder: str) -> None:
        path = Path(folder) / "frames.npy"
        noise = np.random.default_rng(0).normal(-8, 4, (180_000, 80))
        np.save(path, noise.astype(np.float16))
        self.frames = np.load(path, mmap_mode="r").view(np.ndarray)
        self.clip_frames = np.full(180, 1000)
        self.clip_sources = ["noise"] * 180

    def read(self, clip: int, start: int, length: int) -> np.ndarray:
        """(f, t) float16."""
        begin = clip * 1000 + start
        return np.ascontiguousarray(self.frames[begin : begin + length].T)


def fixed_batch(settings: Settings) -> tuple[Tensor, Mask]:
    """Noise and masks."""
    config = settings.model_config()
    torch.manual_seed(1)
    x = torch.randn(settings.batch, config.n_mels, config.unit_frames)
    order = torch.rand(settings.batch, config.rows * config.columns).argsort(1)
    return x, split_order(order, settings.mask_ratio)


def peak_memory(index: int, settings: Settings) -> None:
    """In a process of its own: prints MB beyond what the imports take."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer = Trainer(VARIANTS[index], settings)
    batch = fixed_batch(settings)
    for _ in range(2):
        trainer.step(*batch)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patch-frames", type=int, default=16)
    parser.add_argument("--memory-of", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = from_dict(
        {
            "steps": 1,
            "size": options.size,
            "batch": options.batch,
            "patch_frames": options.patch_frames,
        }
    )
    torch.set_flush_denormal(True)
    if options.memory_of is not None:
        peak_memory(options.memory_of, settings)
        return
    trainers = [Trainer(variant, settings) for variant in VARIANTS]
    batch = fixed_batch(settings)
    seconds: list[list[float]] = [[] for _ in trainers]
    for turn in range(options.rounds + 1):
        for times, trainer in zip(seconds, trainers, strict=True):
            taken = trainer.step(*batch)
            if turn:  # the first round warms up
                times.append(taken)
    peaks = {bf16: matmul_peak(torch.device("cpu"), "bf16" if bf16 else "fp32") for bf16 in (0, 1)}
    flops = training_flops(settings.model_config(), settings.mask_ratio) * options.batch
    print(
        f"{settings.size} {settings.model_config().name}, batch {options.batch}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; matmul peak "
        f"{peaks[0] / 1e9:.0f} GFLOP/s float32, {peaks[1] / 1e9:.0f} bf16\n"
    )
    print("| step | samples/s | ratio | share of matmul peak | peak memory, MB |")
    print("|---|---|---|---|---|")
    plain = statistics.median(seconds[0])
    for index, (variant, times) in enumerate(zip(VARIANTS, seconds, strict=True)):
        median = statistics.median(times)
        words = [sys.executable, __file__, *sys.argv[1:], "--memory-of", str(index)]
        memory = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        print(
            f"| {variant.name} | {options.batch / median:.1f} | {plain / median:.2f} "
            f"| {flops / median / peaks[variant.bf16]:.0%} | {memory:.0f} |"
        )
    with tempfile.TemporaryDirectory() as folder:
        dataset = StepDataset(CropSampler(DiskCorpus(folder), settings))
        start = time.perf_counter()
        for step in range(10):
            dataset[step]
        wait = (time.perf_counter() - start) / 10
    print(
        f"\nReading a batch in the training process takes {wait * 1e3:.1f} ms, "
        f"{wait / (wait + statistics.median(seconds[-1])):.2%} of the step."
    )


if __name__ == "__main__":
    main()
