"""Speed and memory of a pretraining step: ratios against a plain loop, measured in one run.

    python -m benchmarks.pretrain [--recipe small-cpu] [--batch 128] [--compile] [--write]

Every variant trains the same model on the same crops, in a process of its own that keeps its
memory to itself. The processes take turns, step by step, so that a change of the machine's load
meets all of them. Prints a Markdown table; `--write` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import measure
from hear_msm_mae.mae import Mask, MaskedAutoencoder
from hear_msm_mae.pretrain.engine import keep_freed_memory, parameter_groups, set_attention
from hear_msm_mae.pretrain.sampling import CropSampler, StepDataset, split_order
from hear_msm_mae.pretrain.settings import Settings, load_recipe
from hear_msm_mae.pretrain.speed import training_flops

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to compute the same step."""

    name: str
    bf16: bool = True
    fused_attention: bool = False
    masked_only: bool = True
    fused_optimizer: bool = True
    keep_memory: bool = True
    compile: bool = False


PLAIN = Variant(
    "plain: float32, explicit attention, all patches", False, False, False, False, False
)
CHOSEN = Variant("+ freed memory kept (`precision=bf16`)")
FLOAT32 = Variant("the same in float32, SDPA (`precision=fp32`)", bf16=False, fused_attention=True)
VARIANTS = [
    PLAIN,
    Variant("float32, SDPA", False, True, False, False, False),
    Variant("bf16, SDPA", True, True, False, False, False),
    Variant("bf16, matrix products as attention", True, False, False, False, False),
    Variant("+ loss on gathered masked tokens", True, False, True, False, False),
    Variant("+ fused AdamW", True, False, True, True, False),
    CHOSEN,
    FLOAT32,
]
COMPILED = Variant("+ torch.compile", compile=True)


class Trainer:
    """The model of one variant, and its step."""

    def __init__(self, variant: Variant, settings: Settings) -> None:
        torch.manual_seed(0)
        torch.set_flush_denormal(True)
        if variant.keep_memory:
            keep_freed_memory()
        self.variant = variant
        self.model = MaskedAutoencoder(settings.model_config())
        set_attention(self.model, variant.fused_attention)
        groups = parameter_groups(self.model, settings.weight_decay)
        fused = variant.fused_optimizer
        self.optimizer = torch.optim.AdamW(
            groups, lr=1e-4, betas=(0.9, 0.95), fused=fused, foreach=False
        )
        if variant.compile:
            self.model.compile()

    def step(self, spectrogram: Tensor, mask: Mask) -> tuple[float, float]:
        """One optimiser step; returns its seconds on the clock and of the processor."""
        clock, processor = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.variant.bf16):
            if self.variant.masked_only:
                loss = self.model(spectrogram, mask)
            else:
                loss = loss_over_all_patches(self.model, spectrogram, mask)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - clock, time.process_time() - processor


def loss_over_all_patches(model: MaskedAutoencoder, spectrogram: Tensor, mask: Mask) -> Tensor:
    """The usual formulation: predict every patch, then weigh the errors by the mask."""
    prediction = model.predict(spectrogram, mask).float()
    patches = prediction.shape[1]
    everything = Mask.from_permutation(torch.arange(patches).expand(len(spectrogram), -1), 0)
    target = model.target(spectrogram, everything)
    errors = (prediction - target).square().mean(-1)  # (b, l)
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


def serve(variant: Variant, settings: Settings) -> None:
    """In a process of its own: a step per line of input, then the peak memory.

    Answers `seconds processor-seconds`; at the end MB beyond what the imports take.
    """
    gc.collect()
    imports = measure.peak_rss_mb(lambda: None)
    trainer = Trainer(variant, settings)
    batch = fixed_batch(settings)

    def step() -> None:
        print(*trainer.step(*batch), flush=True)

    peak = measure.peak_rss_mb(step)
    for _ in sys.stdin:
        peak = max(peak, measure.peak_rss_mb(step))
    print(peak - imports, flush=True)


class Contestant:
    """The process of one variant, seen from outside."""

    def __init__(self, index: int, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "benchmarks.pretrain", *arguments, "--serve", str(index)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self._answer()  # the first step warms up

    def step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        seconds, processor = self._answer()
        self.seconds.append(seconds)
        self.processor.append(processor)

    def finish(self) -> float:
        """Peak memory in MB."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        (memory,) = self._answer()
        self.process.wait()
        return memory

    def _answer(self) -> list[float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a variant's process ended with status {self.process.wait()}")
        return [float(word) for word in line.split()]


def reading_seconds(settings: Settings, repeats: int = 10) -> float:
    """Time to read and assemble a batch in the training process."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = StepDataset(CropSampler(DiskCorpus(folder), settings))
        start = time.perf_counter()
        for step in range(repeats):
            dataset[step]
        return (time.perf_counter() - start) / repeats


def table(settings: Settings, variants: list[Variant], rounds: int, arguments: list[str]) -> str:
    """Measure all variants in turns."""
    header = measure.machine()
    peaks = {True: measure.MatmulPeak(torch.bfloat16), False: measure.MatmulPeak(torch.float32)}
    contestants = [
        Contestant(VARIANTS.index(v) if v in VARIANTS else -1, arguments) for v in variants
    ]
    for _ in range(rounds):
        for contestant in contestants:
            contestant.step()
        for peak in peaks.values():
            peak()
    flops = training_flops(settings.model_config(), settings.mask_ratio) * settings.batch
    lines = [
        f"{settings.size} {settings.model_config().name}, batch {settings.batch}; {header}; matmul "
        f"peak {peaks[False].flops_per_second / 1e9:.0f} GFLOP/s float32, "
        f"{peaks[True].flops_per_second / 1e9:.0f} bf16. Best of {rounds} steps; ratios by the "
        "best steps, by the median of the pairs, and by the best processor times.\n",
        "| step | samples/s | ratio, best | median | processor | of matmul peak | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = contestants[0]
    for variant, contestant in zip(variants, contestants, strict=True):
        best = min(contestant.seconds)
        pairs = statistics.median(
            a / b for a, b in zip(plain.seconds, contestant.seconds, strict=True)
        )
        processor = min(plain.processor) / min(contestant.processor)
        lines.append(
            f"| {variant.name} | {settings.batch / best:.1f} | {min(plain.seconds) / best:.2f} "
            f"| {pairs:.2f} | {processor:.2f} "
            f"| {flops / best / peaks[variant.bf16].flops_per_second:.0%} "
            f"| {contestant.finish():.0f} |"
        )
    wait = reading_seconds(settings)
    step = min(min(contestants[variants.index(v)].seconds) for v in (CHOSEN, FLOAT32))
    lines.append(
        f"\nReading a batch in the training process (`workers=0`): {wait * 1e3:.1f} ms, "
        f"{wait / (wait + step):.2%} of the faster step."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="base-80x208p16x16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--compile", action="store_true", help="torch.compile too (minutes)")
    parser.add_argument(
        "--ends", action="store_true", help="only the first and the last two variants"
    )
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--serve", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = load_recipe(options.recipe, [f"batch={options.batch}", "source_weights={}"])
    if options.serve is not None:
        serve(COMPILED if options.serve < 0 else VARIANTS[options.serve], settings)
        return
    variants = [PLAIN, CHOSEN, FLOAT32] if options.ends else list(VARIANTS)
    if options.compile:
        variants.append(COMPILED)
    passed = ["--recipe", options.recipe, "--batch", str(options.batch)]
    text = table(settings, variants, options.rounds, passed)
    print(text)
    if options.write:
        measure.write_section(RESULTS, f"pretrain {options.recipe}", text)


if __name__ == "__main__":
    main()
