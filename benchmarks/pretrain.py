"""Speed and memory of a pretraining step: on a GPU against its peak, on a CPU against other code.

    python -m benchmarks.pretrain --device cuda [--write]
    python -m benchmarks.pretrain [--recipe small-cpu] [--batch 64] [--write]

A step draws its crops and masks from a bank of noise, as `pretrain` does. On a CPU a plain loop and
`pretrain` in both precisions train the same model and take turns, step by step, so that a change of
the machine's load meets all of them. Prints a Markdown table; `--write` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
GPU_RUNS = {  # overrides of the recipe base-80x208p16x16
    "base, decoder 384 x 4": [],
    "base, not recorded as a graph": ["cuda_graph=false"],
    "base, corpus on the host": ["bank=host"],
    "small, decoder 192 x 8": [
        *("size=small", "decoder_width=192", "decoder_heads=3", "decoder_depth=8"),
        *("gain_db=8", "tilt_db=6", "mix=0.15"),
    ],
    "the same, reverberation, half procedural": [
        *("size=small", "decoder_width=192", "decoder_heads=3", "decoder_depth=8"),
        *("gain_db=8", "tilt_db=6", "mix=0.15", "reverb=0.3", "procedural=0.5"),
    ],
}
CPU_RUNS: dict[str, dict[str, Any]] = {
    "`precision=fp32`": {"precision": "fp32"},
    "`precision=bf16`": {"precision": "bf16"},
    "bf16, tilt, mixing, reverberation, half procedural": {
        "precision": "bf16",
        "tilt_db": 6.0,
        "mix": 0.15,
        "reverb": 0.3,
        "procedural": 0.5,
    },
}
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
    batches = feed(sampler, shares(settings), 0, fabric.device)
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


def cpu_table(settings: Settings, rounds: int) -> str:
    """Measure all contestants in turns."""
    header = measure.machine()
    peaks = {precision: measure.MatmulPeak(precision) for precision in ("bf16", "fp32")}
    contestants = {"plain: float32, explicit attention, all patches": plain_step(settings)}
    for name, changes in CPU_RUNS.items():
        step, _ = pretrain_step(dataclasses.replace(settings, accelerator="cpu", **changes))
        contestants[f"`pretrain`, {name}"] = step
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    with denormals_flushed():
        for turn in range(rounds + 1):
            for name, step in contestants.items():
                clock, processor = time.perf_counter(), time.process_time()
                step()
                spent = time.perf_counter() - clock, time.process_time() - processor
                if turn:  # the first one warms up
                    times[name].append(spent)
            for peak in peaks.values():
                peak()
    flops = training_flops(settings) * settings.batch
    lines = [
        f"{settings.size} {settings.model.name}, batch {settings.batch}; {header}; matmul peak "
        f"{peaks['fp32'].flops_per_second / 1e9:.0f} GFLOP/s float32, "
        f"{peaks['bf16'].flops_per_second / 1e9:.0f} bf16. {rounds} steps; ratios to the plain "
        "loop by the best steps, by the median of the pairs, and by the best processor times.\n",
        "| step | samples/s | GFLOP/s | ratio, best | median | processor |",
        "|---|---|---|---|---|---|",
    ]
    plain = np.array(next(iter(times.values())))  # (rounds, 2): wall-clock, processor
    for name, values in times.items():
        took = np.array(values)
        (best, processor), (first, first_processor) = took.min(0), plain.min(0)
        lines.append(
            f"| {name} | {settings.batch / best:.1f} | {flops / best / 1e9:.0f} "
            f"| {first / best:.2f} | {np.median(plain[:, 0] / took[:, 0]):.2f} "
            f"| {first_processor / processor:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--recipe", default="base-80x208p16x16", help="on a CPU")
    parser.add_argument("--batch", type=int, help="default: 64, on a GPU 1024")
    parser.add_argument("--rounds", type=int, default=6, help="steps of each contestant")
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    options = parser.parse_args()
    if options.device == "cuda":
        name, text = "pretrain on a GPU", gpu_table(options.batch or 1024)
    else:
        words = [f"batch={options.batch or 64}", "source_weights={}"]
        name = f"pretrain {options.recipe}"
        text = cpu_table(load_recipe(options.recipe, words), options.rounds)
    print(text)
    if options.write:
        measure.write_section(RESULTS, name, text)


if __name__ == "__main__":
    main()
