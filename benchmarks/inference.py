"""Speed and memory of embedding, against a plain path (benchmarks/plain.py).

    python -m benchmarks.inference [--quick] [--write]

From the root of the repository. Prints one Markdown table; `--write` puts it into RESULTS.md as
well. `--quick` (2 s clip only, few repeats) is for seeing that everything runs, not for figures.

FLOPs of the encoder, per unit of l patches, n = l + 1 tokens with CLS, 2 per multiply-add:
`2 l a d + depth (2 n d^2 (4 + 2 r) + 4 n^2 d)` with patch area a, width d, MLP ratio r. Only what
the clip needs at the native hop is counted, so padding lowers the share of the peak.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.plain import PlainPath, plain_log_mel
from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.config import SAMPLE_RATE, ModelConfig
from hear_msm_mae.log_mel import LogMel
from hear_msm_mae.model import HearModel
from hear_msm_mae.options import resolve_options
from hear_msm_mae.timeline import scene_track, split_units

INPUTS = [(8, 10), (1, 10), (1, 2)]  # clips, seconds
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TASKS = ("scene", "plain scene", "timestamps", "plain timestamps", "fine timestamps")
RESULTS = Path(__file__).parent / "RESULTS.md"
COLUMNS = (
    "what",
    "input",
    "precision",
    "audio s/s",
    "against: audio s/s",
    "ratio, best",
    "ratio, median",
    "share of peak",
    "against: share",
    "peak MB",
    "against: peak MB",
)


# ---------------------------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------------------------
@cache
def build(name: str, precision: str) -> HearModel:
    """The "base" model with seeded random weights, or the "bundled" one; native hop."""
    if name == "bundled":
        model = load_model(precision=precision)
    else:
        torch.manual_seed(0)
        config = ModelConfig()
        model = HearModel(config, resolve_options(config, {"precision": precision})).eval()
        model.encoder.to(DTYPES[precision])
    return with_options(model, timestamp_hop_ms=model.config.native_hop_ms)


def with_options(model: HearModel, **options: Any) -> HearModel:
    """The same weights under other options."""
    other = copy.copy(model)  # shares the modules
    other.options = dataclasses.replace(model.options, **options)
    return other


def default_hop_ms(config: ModelConfig) -> int:
    """Of timestamps, when no option is given."""
    return resolve_options(config, {}).timestamp_hop_ms


def noise(clips: int, seconds: float) -> Tensor:
    """(b, n) white noise."""
    generator = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(clips, round(SAMPLE_RATE * seconds), generator=generator)


def contestant(name: str, task: str, precision: str, audio: Tensor) -> Callable[[], object]:
    """This package's path with weights kept in `precision`, or the plain one with autocast.

    Builds nothing but the one model that is needed, as its memory is measured too.
    """
    if task.startswith("plain"):
        plain = PlainPath(build(name, "float32"), autocast=precision == "bfloat16")
        return partial(plain.scene if task == "plain scene" else plain.frames, audio)
    model = build(name, precision)
    if task == "scene":
        return partial(get_scene_embeddings, audio, model)
    if task == "fine timestamps":
        model = with_options(model, timestamp_hop_ms=default_hop_ms(model.config))
    return partial(get_timestamp_embeddings, audio, model)


def encoder_flops(config: ModelConfig, num_samples: int) -> float:
    """To encode one clip once; the formula is at the top of this file."""
    d, total = config.width, 0.0
    for unit in split_units(scene_track(num_samples, config).columns, config.columns):
        patches = unit.columns * config.rows
        n = patches + config.cls_token
        block = 2 * n * d**2 * (4 + 2 * config.mlp_ratio) + 4 * n**2 * d
        total += 2 * patches * config.patch_area * d + config.depth * block
    return total


def check_equal(name: str) -> None:
    """Ours in paper mode (its padding) and the plain path must give the same embeddings."""
    model = build(name, "float32")
    paper = with_options(model, mode="paper")
    plain = PlainPath(model)
    audio = noise(2, 5.3)
    # torchaudio transforms in float32: its own rounding is most of what is allowed here.
    torch.testing.assert_close(
        get_timestamp_embeddings(audio, paper)[0], plain.frames(audio), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        get_scene_embeddings(audio, paper), plain.scene(audio), atol=1e-3, rtol=1e-3
    )


def closeness(name: str) -> str:
    """How far bfloat16 embeddings are from float32 ones."""
    audio = noise(4, 5)
    exact = get_timestamp_embeddings(audio, build(name, "float32"))[0].flatten(0, 1)
    rounded = get_timestamp_embeddings(audio, build(name, "bfloat16"))[0].flatten(0, 1)
    cosine = torch.cosine_similarity(exact, rounded).min()
    distance = (exact - rounded).norm() / exact.norm()
    return (
        f"bfloat16 frame embeddings of {name} against float32: lowest cosine {cosine:.5f}, "
        f"relative L2 {distance:.2g}"
    )


# ---------------------------------------------------------------------------------------------
# Memory: a fresh process for each configuration
# ---------------------------------------------------------------------------------------------
def peak_memory(*configuration: object) -> float:
    """Peak RSS in MB of embedding in a process that did nothing before but build the model."""
    command = [sys.executable, "-m", __spec__.name, "--peak-memory", *map(str, configuration)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(name: str, task: str, precision: str, clips: str, seconds: str) -> None:
    """What `peak_memory` starts."""
    audio = noise(int(clips), float(seconds))
    print(measure.peak_rss_mb(contestant(name, task, precision, audio)))


# ---------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------
def row(what: str, size: tuple[int, int], precision: str, *values: float | None) -> str:
    """A line of the table; missing values are dashes."""
    shown = ["-" if x is None else f"{x:.0f}" if x >= 100 else f"{x:.2f}" for x in values]
    return f"| {what} | {size[0]} x {size[1]} s | {precision} | " + " | ".join(shown) + " |"


def frontend_rows(sizes: list[tuple[int, int]], repeats: int) -> list[str]:
    ours, plain = LogMel(), plain_log_mel()
    rows, difference = [], 0.0
    for clips, seconds in sizes:
        audio = noise(clips, seconds)
        difference = max(difference, (ours.log_mel(audio) - plain(audio)).abs().max().item())
        contestants = {"ours": lambda x=audio: ours(x), "plain": lambda x=audio: plain(x)}
        times = measure.interleaved(contestants, repeats)
        speeds = [clips * seconds / min(times[name]) for name in ("ours", "plain")]
        ratios = measure.ratios(times, "plain", "ours")
        what = f"front end (max abs difference {difference:.1g})"
        rows.append(row(what, (clips, seconds), "float32", *speeds, *ratios, *[None] * 4))
    return rows


def model_rows(name: str, sizes: list[tuple[int, int]], repeats: int, quick: bool) -> list[str]:
    config = build(name, "float32").config
    peaks = {precision: measure.MatmulPeak(dtype) for precision, dtype in DTYPES.items()}
    table = []
    for size in sizes:
        audio = noise(*size)
        contestants: dict[str, Callable[[], object]] = {}
        for precision, peak in peaks.items():
            for task in TASKS:
                run = contestant(name, task, precision, audio)
                contestants[f"{task} {precision}"] = run
            contestants[f"matmul {precision}"] = peak
        times = measure.interleaved(contestants, repeats)
        flops = len(audio) * encoder_flops(config, audio.shape[1])

        def compare(
            what: str,
            a: str,
            b: str,
            precision: str,
            size: tuple[int, int] = size,
            times: Mapping[str, list[float]] = times,
            flops: float = flops,
        ) -> str:
            speeds, shares, memory = [], [], []
            for entry in (a, b):
                dtype = entry.split()[-1]
                best = min(times[entry])
                speeds.append(math.prod(size) / best)
                counted = "fine" not in entry  # several times the FLOPs
                shares.append(flops / best / peaks[dtype].flops_per_second if counted else None)
                task = entry.removesuffix(f" {dtype}")
                skip = quick and "scene" not in task
                memory.append(None if skip else peak_memory(name, task, dtype, *size))
            ratio = measure.ratios(dict(times), b, a)
            return row(f"{name}: {what}", size, precision, *speeds, *ratio, *shares, *memory)

        for precision in DTYPES:
            for task in ("scene", "timestamps"):
                mine = f"{task} {precision}"
                table.append(compare(f"{task} against plain", mine, f"plain {mine}", precision))
            native, fine = f"timestamps {precision}", f"fine timestamps {precision}"
            what = f"timestamps, {default_hop_ms(config)} against {config.native_hop_ms} ms"
            table.append(compare(what, fine, native, precision))
        what = "scene, bfloat16 against float32"
        table.append(compare(what, "scene bfloat16", "scene float32", "both"))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one short clip, few repeats")
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--peak-memory", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_memory:
        print_peak_memory(*arguments.peak_memory)
        return
    header = measure.machine()
    sizes, repeats = (INPUTS[-1:], 3) if arguments.quick else (INPUTS, 7)
    rows = frontend_rows(sizes, 3 * repeats)
    notes = []
    for name in ("base", "bundled"):
        try:
            check_equal(name)
        except FileNotFoundError as error:
            print(f"no rows for the bundled model: {error}", file=sys.stderr)
            continue
        rows += model_rows(name, sizes, repeats, arguments.quick)
        notes.append(closeness(name))
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    text = "\n\n".join([header, head + "\n".join(rows), *notes])
    print(text)
    if arguments.write:
        measure.write_section(RESULTS, "inference", text)


if __name__ == "__main__":
    main()
