"""Speed and memory of embedding, against the peers' runtime (benchmarks/plain.py).

    python -m benchmarks.inference [--device cuda] [--quick] [--write]

From the root of the repository. Prints one Markdown table; `--write` puts it into RESULTS.md as
well. `--quick` (one short clip, few repeats) is for seeing that everything runs, not for figures.
`OMP_NUM_THREADS=1` gives the figures of one thread.

"Ratio" is how many times faster the first is than what it is compared with, as the median of pairs
measured one after the other. "Of the peak" is the share of the rate of one large matrix product,
"of the encoder" that of the rate of the encoder alone with whole units in large batches. Only the
FLOPs of the encoder that the clips need at the native hop are counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.plain import PlainLogMel, PlainPath
from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.checkpoints.native import Checkpoint, state_tensors
from hear_msm_mae.config import SAMPLE_RATE, ModelConfig
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.log_mel import LogMel
from hear_msm_mae.model import HearModel
from hear_msm_mae.options import resolve_options
from hear_msm_mae.pretrain.hardware import block_flops
from hear_msm_mae.timeline import split_units

NAMES = ("base", "bundled")
INPUTS = {"cpu": [(8, 10), (1, 10), (1, 2)], "cuda": [(64, 10), (1, 10), (1, 2)]}  # clips, seconds
UNITS = {"cpu": 8, "cuda": 256}  # whole units that the encoder alone gets at once
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}  # names of the model and of pretraining
RESULTS = Path(__file__).parent / "RESULTS.md"
COLUMNS = "what | input | ms | x real time | ratio | of the peak | of the encoder | peak MB"


# ---------------------------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------------------------
@cache
def build(name: str, precision: str, device: str = "cpu") -> HearModel:
    """The "base" model with seeded random weights, or the "bundled" one; scenes as the peers'."""
    options: dict[str, Any] = {"precision": precision, "scene_pooling": "mean"}
    if name == "bundled":
        return load_model(device=device, **options)
    torch.manual_seed(0)
    config = ModelConfig()
    checkpoint = Checkpoint(config, state_tensors(Encoder(config)))
    return HearModel(checkpoint, resolve_options(config, options)).to(device)


def noise(clips: int, seconds: float) -> Tensor:
    """(b, n) white noise."""
    generator = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(clips, round(SAMPLE_RATE * seconds), generator=generator)


def contestant(name: str, task: str, device: str, audio: Tensor) -> Callable[[], object]:
    """What is timed, e.g. "peers float32"; builds the one model that it needs."""
    what, precision = task.split()
    if what == "peers":
        plain = PlainPath(build(name, "float32", device), autocast=precision == "bfloat16")
        return partial(plain.scene, audio)
    model = build(name, precision, device)
    if what == "encoder":
        shape = (UNITS[device], model.config.n_mels, model.config.unit_frames)
        units = torch.randn(shape, device=device)
        return torch.no_grad()(partial(model.encoder, units, layers=model.options.layers))
    run = get_scene_embeddings if what == "scene" else get_timestamp_embeddings
    return partial(run, audio, model)


def encoder_flops(model: HearModel, columns: int) -> float:
    """FLOPs to encode a run of patch columns once, 2 per multiply-add."""
    config, total = model.config, 0.0
    blocks = max(model.options.layers) + 1
    for start, stop in split_units(columns, config.columns):
        patches = (stop - start) * config.rows
        tokens = patches + config.cls_token
        total += 2 * patches * config.patch_area * config.width
        total += block_flops(tokens, config.width, blocks, config.mlp_ratio)
    return total


def check_equal(name: str, device: str) -> None:
    """Ours and the peers' runtime give the same scenes where the last patch is a whole one."""
    model, audio = build(name, "float32", device), noise(2, 5.27)  # 528 frames
    # torchaudio transforms in float32: its own rounding is most of what is allowed here.
    torch.testing.assert_close(
        get_scene_embeddings(audio, model), PlainPath(model).scene(audio), atol=1e-3, rtol=1e-3
    )


def closeness(name: str, device: str) -> str:
    """How far bfloat16 embeddings are from float32 ones."""
    exact, rounded = (
        get_timestamp_embeddings(noise(4, 5), build(name, precision, device))[0].flatten(0, 1)
        for precision in PRECISIONS
    )
    cosine = torch.cosine_similarity(exact, rounded).min()
    distance = (exact - rounded).norm() / exact.norm()
    return (
        f"bfloat16 frame embeddings of {name} against float32: lowest cosine {cosine:.5f}, "
        f"relative L2 {distance:.2g}"
    )


def independence(name: str, device: str) -> str:
    """How far a clip's scene embedding moves when seven other clips of any level join it."""
    model, audio = build(name, "float32", device), noise(8, 4.5)
    audio *= torch.logspace(-3, 0.5, 8)[:, None]
    alone = torch.cat([get_scene_embeddings(clip[None], model) for clip in audio])
    together = get_scene_embeddings(audio, model)
    distance = ((alone - together).norm(dim=1) / alone.norm(dim=1)).max()
    return f"A clip alone and in a batch of eight, {name}: relative L2 of at most {distance:.1g}"


# ---------------------------------------------------------------------------------------------
# Memory: on a CPU in a fresh process for each figure
# ---------------------------------------------------------------------------------------------
def peak_memory(name: str, task: str, device: str, clips: int, seconds: int) -> float:
    """MB: of a process that only built the model before, or on the GPU beside the weights."""
    if device == "cuda":
        run = contestant(name, task, device, noise(clips, seconds).to(device))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    words = [sys.executable, "-m", __spec__.name, "--peak-memory", name, task]
    words += [str(clips), str(seconds)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


# ---------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------
def row(what: str, size: tuple[int, int] | None, *values: float | None) -> str:
    """A line of the table; missing values are dashes."""
    shown = ["-" if x is None else f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in values]
    shown += ["-"] * (COLUMNS.count("|") - 1 - len(shown))
    return f"| {what} | {f'{size[0]} x {size[1]} s' if size else '-'} | {' | '.join(shown)} |"


def log_mel_rows(device: str, sizes: list[tuple[int, int]], repeats: int) -> list[str]:
    """The front end against torchaudio's, from samples that are on the device."""
    ours, peers, rows = LogMel().to(device), PlainLogMel().to(device), []
    for size in sizes:
        audio = noise(*size).to(device)
        runs = {"ours": partial(ours.log_mel, audio), "peers": partial(peers, audio)}
        times = measure.interleaved(runs, repeats, device)
        seconds = min(times["ours"])
        ratio = measure.ratios(times, "peers", "ours")[1]
        real_time = size[0] * size[1] / seconds
        rows.append(row("log-mel against torchaudio", size, 1e3 * seconds, real_time, ratio))
    return rows


def model_rows(
    name: str, device: str, sizes: list[tuple[int, int]], repeats: int, quick: bool
) -> list[str]:
    """Scenes against the peers, timestamps against scenes."""
    model, rows = build(name, "float32", device), []
    peaks = {name: measure.MatmulPeak(short, device) for name, short in PRECISIONS.items()}
    whole_units = UNITS[device] * encoder_flops(model, model.config.columns)
    for size in sizes:
        audio = noise(*size).to(device)
        runs: dict[str, Callable[[], object]] = {}
        for precision, peak in peaks.items():
            for what in ("peers", "scene", "timestamps", "encoder"):
                task = f"{what} {precision}"
                runs[task] = contestant(name, task, device, audio)
            runs[f"matmul {precision}"] = peak
        times = measure.interleaved(runs, repeats, device)
        columns = -(-model.config.num_frames(audio.shape[1]) // model.config.patch_frames)
        flops = size[0] * encoder_flops(model, columns)
        for ours, other in (
            ("peers float32", "peers float32"),
            ("scene float32", "peers float32"),
            ("scene bfloat16", "peers float32"),
            ("scene bfloat16", "peers bfloat16"),
            ("timestamps float32", "scene float32"),
            ("timestamps bfloat16", "scene bfloat16"),
        ):
            what, precision = ours.split()
            seconds = min(times[ours])
            shares: list[float | None] = [None, None]
            if what != "timestamps":  # several times the FLOPs
                encoder = whole_units / min(times[f"encoder {precision}"])
                shares = [flops / seconds / x for x in (peaks[precision].flops_per_second, encoder)]
            ratio = measure.ratios(times, other, ours)[1]
            memory = None if quick else peak_memory(name, ours, device, *size)
            label = f"{name}: {ours}" + (f" against {other}" if ours != other else "")
            real_time = size[0] * size[1] / seconds
            rows.append(row(label, size, 1e3 * seconds, real_time, ratio, *shares, memory))
    return rows


def memory_row() -> str:
    """What the length of a recording costs."""
    hour, minute = (peak_memory("bundled", "scene float32", "cpu", 1, n) for n in (3600, 60))
    return row("extra memory of an hour over a minute", None, *[None] * 5, hour - minute)


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", choices=INPUTS, default="cpu", help="where to compute")
    parser.add_argument("--quick", action="store_true", help="one short clip, few repeats")
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--peak-memory", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = arguments.device
    if arguments.peak_memory:  # what `peak_memory` starts
        name, task, clips, seconds = arguments.peak_memory
        run = contestant(name, task, device, noise(int(clips), float(seconds)))
        print(measure.peak_rss_mb(run))
        return
    header = measure.machine(device)
    sizes, repeats = (INPUTS[device][-1:], 3) if arguments.quick else (INPUTS[device], 5)
    rows = log_mel_rows(device, sizes, 3 * repeats)
    for name in NAMES:
        check_equal(name, device)
        rows += model_rows(name, device, sizes, repeats, arguments.quick)
    if device == "cpu" and not arguments.quick:
        rows.append(memory_row())
    head = f"| {COLUMNS} |\n|{'---|' * (COLUMNS.count('|') + 1)}\n"
    notes = [note(name, device) for note in (closeness, independence) for name in NAMES]
    text = "\n\n".join([header, head + "\n".join(rows), *notes])
    print(text)
    if arguments.write:
        measure.write_section(RESULTS, f"inference, {device}", text)


if __name__ == "__main__":
    main()
