"""Speed and memory of a pretraining step: on a GPU against its peak, on a CPU against other code.

    python -m benchmarks.pretrain --device cuda [--write]
    python -m benchmarks.pretrain [--recipe small-cpu] [--batch 64] [--beside FOLDER] [--write]

A step draws its crops and masks from a bank of noise, as `pretrain` does. On a CPU every
contestant trains the same model in a process of its own, and the processes take turns, step by
step, so that a change of the machine's load meets all of them: the plain loop, `pretrain` in both
precisions and, with `--beside`, the checkout of another commit whose file of this name has a
`--serve`. Prints a Markdown table; `--write` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks import measure
from hear_msm_mae.corpus.bank import Bank
from hear_msm_mae.mae import Mask, MaskedAutoencoder
from hear_msm_mae.pretrain.hardware import (
    compile_blocks,
    denormals_flushed,
    launch,
    matmul_peak,
    place_bank,
    set_attention,
    training_flops,
)
from hear_msm_mae.pretrain.parsing import load_recipe
from hear_msm_mae.pretrain.sampling import Sampler, feed, shares, split_order
from hear_msm_mae.pretrain.settings import Settings
from hear_msm_mae.pretrain.step import Stepper, parameter_groups

RESULTS = Path(__file__).with_name("RESULTS.md")
PLAIN, BF16, FP32 = CONTESTANTS = ("plain", "bf16", "fp32")
NAMES = {
    PLAIN: "plain: float32, explicit attention, all patches",
    BF16: "`pretrain`, `precision=bf16`",
    FP32: "`pretrain`, `precision=fp32`",
}
GPU_RUNS = {  # overrides of the recipe base-80x208p16x16
    "base, decoder 384 x 4": [],
    "base, not recorded as a graph": ["cuda_graph=false"],
    "base, corpus on the host": ["bank=host"],
    "small, decoder 192 x 8": ["size=small", "decoder_width=192", "decoder_heads=3"],
}
GPU_RUNS["small, decoder 192 x 8"] += ["decoder_depth=8", "gain_db=8", "tilt_db=6", "mix=0.15"]
WARM_STEPS, TIMED_STEPS, PROFILED_STEPS = 12, 60, 10


def noise_bank(hours: float = 0.5) -> Bank:
    """Clips of 10 s with noise."""
    clips = round(hours * 360)
    torch.manual_seed(0)
    frames = torch.randn(clips * 1000, 80).mul_(4).sub_(8).half()
    lengths = torch.full((clips,), 1000)
    starts = torch.arange(clips) * 1000
    return Bank(frames, starts, lengths, ["noise"] * clips, -8.0, 4.0, "0" * 64)


def pretrain_step(settings: Settings) -> tuple[Callable[[], None], torch.device]:
    """A step of `pretrain` on what the settings' accelerator is."""
    fabric = launch(settings)
    torch.manual_seed(0)
    model = MaskedAutoencoder(settings.model)
    set_attention(model, fabric.device.type != "cpu" or settings.precision == "fp32")
    if fabric.device.type == "cuda":
        compile_blocks(model)
    sampler = Sampler(place_bank(noise_bank(), settings.bank, fabric.device), settings)
    groups = parameter_groups(model, settings.weight_decay)
    step = Stepper(settings, fabric, model, groups, sampler.arguments)
    batches = feed(sampler, shares(settings), range(10**9), fabric.device)
    return (lambda: step(next(batches), 1e-4)), fabric.device


# ---------------------------------------------------------------------------------------------
# On a GPU
# ---------------------------------------------------------------------------------------------
def gpu_table(batch: int) -> str:
    """Samples per second, share of the matmul peak and of the time that the GPU computes."""
    peak = matmul_peak(torch.device("cuda"), "bf16")
    lines = [
        f"{torch.cuda.get_device_name()}; torch {torch.__version__}; batch {batch}; matmul peak "
        f"{peak / 1e12:.0f} TFLOP/s bf16.\n",
        "| run | samples/s | TFLOP/s | of matmul peak | GPU busy | peak GB |",
        "|---|---|---|---|---|---|",
    ]
    for name, overrides in GPU_RUNS.items():
        words = [f"batch={batch}", "precision=bf16", "accelerator=cuda", "devices=1", *overrides]
        settings = load_recipe("base-80x208p16x16", words)
        torch.cuda.reset_peak_memory_stats()
        step, _ = pretrain_step(settings)
        for _ in range(WARM_STEPS):
            step()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(TIMED_STEPS):
            step()
        torch.cuda.synchronize()
        rate = TIMED_STEPS * batch / (time.perf_counter() - start)
        flops = rate * training_flops(settings)
        lines.append(
            f"| {name} | {rate:.0f} | {flops / 1e12:.0f} | {flops / peak:.0%} "
            f"| {busy_share(step):.0%} | {torch.cuda.max_memory_allocated() / 1e9:.1f} |"
        )
        del step
        gc.collect()
        torch.cuda.empty_cache()
    return "\n".join(lines)


def busy_share(step: Callable[[], None]) -> float:
    """Share of some steps' time in which a kernel or a copy runs, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type.name == "CUDA"
    )
    busy, end = 0.0, spans[0][0]
    for first, last in spans:
        busy += max(0.0, last - max(first, end))
        end = max(end, last)
    return busy / (end - spans[0][0])


# ---------------------------------------------------------------------------------------------
# On a CPU
# ---------------------------------------------------------------------------------------------
def plain_step(settings: Settings) -> Callable[[], None]:
    """What one writes first: no fused kernels, and the loss over all patches."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(settings.model)
    set_attention(model, fused=False)
    groups = parameter_groups(model, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), foreach=False)
    x = torch.randn(settings.batch, settings.model.n_mels, settings.model.unit_frames)
    order = torch.rand(settings.batch, settings.model.rows * settings.model.columns).argsort(1)
    mask = split_order(order, settings.mask_ratio)

    def step() -> None:
        loss_over_all_patches(model, x, mask).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def loss_over_all_patches(model: MaskedAutoencoder, spectrogram: Tensor, mask: Mask) -> Tensor:
    """The usual formulation: predict every patch, then weigh the errors by the mask."""
    prediction = model.predict(spectrogram, mask).float()
    patches = prediction.shape[1]
    everything = Mask.from_permutation(torch.arange(patches).expand(len(spectrogram), -1), 0)
    target = model.target(spectrogram, everything)
    errors = (prediction - target).square().mean(-1)  # (b, l)
    hidden = torch.zeros_like(errors).scatter(1, mask.masked, 1.0)
    return (errors * hidden).sum() / hidden.sum()


def serve(contestant: str, settings: Settings) -> None:
    """In a process of its own: a step per line of input, then the peak memory.

    Answers `seconds processor-seconds`; at the end MB beyond what the imports take.
    """
    gc.collect()
    imports = measure.peak_rss_mb(lambda: None)
    if contestant == PLAIN:
        compute = plain_step(settings)
    else:
        precision: Literal["bf16", "fp32"] = "bf16" if contestant == BF16 else "fp32"
        changed = dataclasses.replace(settings, accelerator="cpu", precision=precision)
        compute, _ = pretrain_step(changed)

    def step() -> None:
        clock, processor = time.perf_counter(), time.process_time()
        compute()
        print(time.perf_counter() - clock, time.process_time() - processor, flush=True)

    with denormals_flushed():
        peak = measure.peak_rss_mb(step)
        for _ in sys.stdin:
            peak = max(peak, measure.peak_rss_mb(step))
    print(peak - imports, flush=True)


class Contestant:
    """The process of one contestant, seen from outside."""

    def __init__(self, name: str, arguments: list[str], folder: Path | None = None) -> None:
        command = [sys.executable, "-m", "benchmarks.pretrain", *arguments, "--serve", name]
        environment = dict(os.environ)
        if folder is not None:
            environment["PYTHONPATH"] = str(folder)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self._answer()  # the first step warms up

    def step(self) -> None:
        """Have the process do one step, and note what it took."""
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
            raise RuntimeError(f"a contestant's process ended with status {self.process.wait()}")
        return [float(word) for word in line.split()]


def table(
    settings: Settings, rounds: int, arguments: list[str], beside: tuple[Path, list[str]] | None
) -> str:
    """Measure all contestants in turns."""
    header = measure.machine()
    peaks = {precision: measure.MatmulPeak(precision) for precision in (BF16, FP32)}
    contestants = {NAMES[name]: Contestant(name, arguments) for name in CONTESTANTS}
    if beside is not None:
        folder, served = beside
        for name in served:
            contestants[f"other commit, `--serve {name}`"] = Contestant(name, arguments, folder)
    for _ in range(rounds):
        for contestant in contestants.values():
            contestant.step()
        for peak in peaks.values():
            peak()
    flops = training_flops(settings) * settings.batch
    lines = [
        f"{settings.size} {settings.model.name}, batch {settings.batch}; {header}; matmul peak "
        f"{peaks[FP32].flops_per_second / 1e9:.0f} GFLOP/s float32, "
        f"{peaks[BF16].flops_per_second / 1e9:.0f} bf16. {rounds} steps; ratios to the plain loop "
        "by the best steps, by the median of the pairs, and by the best processor times.\n",
        "| step | samples/s | GFLOP/s | ratio, best | median | processor | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = contestants[NAMES[PLAIN]]
    for name, contestant in contestants.items():
        best = min(contestant.seconds)
        pairs = statistics.median(
            a / b for a, b in zip(plain.seconds, contestant.seconds, strict=True)
        )
        processor = min(plain.processor) / min(contestant.processor)
        lines.append(
            f"| {name} | {settings.batch / best:.1f} | {flops / best / 1e9:.0f} "
            f"| {min(plain.seconds) / best:.2f} | {pairs:.2f} | {processor:.2f} "
            f"| {contestant.finish():.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--recipe", default="base-80x208p16x16", help="on a CPU")
    parser.add_argument("--batch", type=int, default=None, help="64, on a GPU 1024")
    parser.add_argument("--rounds", type=int, default=6, help="steps of each contestant")
    parser.add_argument("--beside", type=Path, help="checkout of another commit")
    parser.add_argument(
        "--beside-serve", nargs="+", default=[BF16, FP32], help="what its --serve is given"
    )
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--serve", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    batch = options.batch or (1024 if options.device == "cuda" else 64)
    if options.device == "cuda":
        name, text = "pretrain on a GPU", gpu_table(batch)
    else:
        settings = load_recipe(options.recipe, [f"batch={batch}", "source_weights={}"])
        if options.serve is not None:
            serve(options.serve, settings)
            return
        passed = ["--recipe", options.recipe, "--batch", str(batch)]
        beside = (options.beside.resolve(), options.beside_serve) if options.beside else None
        name = f"pretrain {options.recipe}"
        text = table(settings, options.rounds, passed, beside)
    print(text)
    if options.write:
        measure.write_section(RESULTS, name, text)


if __name__ == "__main__":
    main()
