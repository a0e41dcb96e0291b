"""ONNX files against torch: agreement, linear probes, speed and size.

    OMP_NUM_THREADS=1 python -m benchmarks.onnx [--weights FILE] [--write]

The probes are those of benchmarks/quality.py on the tasks that need nothing but recordings, which
are fetched as Debian packages into --cache.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.audio import find_audio, read_audio
from hear_msm_mae.checkpoints.hub import find_weights
from hear_msm_mae.model import HearModel
from hear_msm_mae.onnx_export import export_onnx

from .evaluation import contestants
from .evaluation.probe import GRID, VALIDATION_FOLDS
from .evaluation.run import evaluate
from .evaluation.sources import DEFAULT_CACHE
from .evaluation.tasks import TASKS
from .measure import interleaved, machine, write_section

RESULTS = Path(__file__).with_name("RESULTS.md")
EXAMPLES = Path(__file__).parents[1] / "examples"
PROBED = ("letters", "reactions", "speaker", "language", "events")
NAMES = ("torch", "ONNX float32", "ONNX int8")
UNITS = 16  # of the encoder's timing
CLIPS, SECONDS = 4, 10  # of the timing of scene embeddings
Row = tuple[str, list[str]]


def files(weights: Path, folder: Path) -> dict[str, Path]:
    """What is compared, by name; writes the ONNX files."""
    model = load_model(weights)
    paths = [folder / "float32.onnx", folder / "int8.onnx"]
    export_onnx(model, paths[0])
    export_onnx(model, paths[1], int8=True)
    return dict(zip(NAMES, (weights, *paths), strict=True))


def agreement(models: dict[str, HearModel]) -> list[Row]:
    """How far embeddings of the example recordings are from those of torch."""
    scenes: dict[str, Tensor] = {}
    frames: dict[str, Tensor] = {}
    for name, model in models.items():
        clips = [read_audio(path, sample_rate=model.sample_rate) for path in find_audio([EXAMPLES])]
        scenes[name] = torch.cat([get_scene_embeddings(clip[None], model) for clip in clips])
        timed = [get_timestamp_embeddings(clip[None], model)[0][0] for clip in clips]
        frames[name] = torch.cat(timed)
    rows: dict[str, list[str]] = {}
    for name in models:
        for kind, found in (("scene", scenes), ("frame", frames)):
            distance = (found[name] - found["torch"]).norm() / found["torch"].norm()
            rows.setdefault(f"{kind} embeddings, relative L2", []).append(f"{distance:.1e}")
        cosine = torch.cosine_similarity(scenes[name], scenes["torch"]).min()
        rows.setdefault("scene embeddings, smallest cosine", []).append(f"{cosine:.6f}")
    return list(rows.items())


def speed(models: dict[str, HearModel], repeats: int) -> list[Row]:
    """Best of the repeats, and how many times faster than torch."""
    some = models["torch"].config
    units = torch.randn(UNITS, some.n_mels, some.unit_frames)
    clips = torch.randn(CLIPS, SECONDS * some.sample_rate) * 0.1
    kinds: dict[str, Callable[[HearModel], object]] = {
        f"encoder, {UNITS} units": lambda model: model.embed_units(units),
        f"scene embeddings, {CLIPS} x {SECONDS} s": lambda m: get_scene_embeddings(clips, m),
    }
    rows = []
    for kind, work in kinds.items():
        runs = {name: lambda m=model, w=work: w(m) for name, model in models.items()}
        with torch.no_grad():
            best = {name: min(times) for name, times in interleaved(runs, repeats).items()}
        cells = [f"{1000 * t:.0f} ms ({best['torch'] / t:.2f} x)" for t in best.values()]
        rows.append((kind, cells))
    return rows


def probes(paths: dict[str, Path], seeds: int, cache: Path) -> list[Row]:
    """Accuracy in percent of linear probes, and its mean over the tasks."""
    tasks = []
    for name in PROBED:
        pool = TASKS[name].recipe.pool(cache)
        tasks.append((pool, TASKS[name].data(pool)))
    found = []
    for name, path in paths.items():
        contestant = contestants.weights(path, {}, name)
        scores = evaluate(contestant, tasks, seeds, GRID, VALIDATION_FOLDS, cache)
        found.append({task: float(np.mean(scores[task]["linear"])) for task in PROBED})
    rows = [(f"probe: {task}", [f"{scores[task]:.1f}" for scores in found]) for task in PROBED]
    means = [f"{np.mean(list(scores.values())):.2f}" for scores in found]
    return [*rows, (f"probes, mean of {len(PROBED)}", means)]


def table(weights: Path, repeats: int, seeds: int, cache: Path) -> str:
    """Markdown: speed and agreement of the ONNX files with torch."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = files(weights, Path(folder))
        models = {name: load_model(path) for name, path in paths.items()}
        sizes = ("file, MB", [f"{path.stat().st_size / 1e6:.1f}" for path in paths.values()])
        rows = [sizes, *agreement(models), *speed(models, repeats), *probes(paths, seeds, cache)]
    lines = [f"| | {' | '.join(NAMES)} |", "|---|---|---|---|"]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]
    text = (
        f"{weights.stem}; {where}. Times are the best of {repeats} runs in turn, with torch's time "
        f"divided by it in brackets; probes are means over {seeds} divisions. ONNX files hold the "
        "encoder up to the block that is read. int8 stands for matrices of 8 bits with a scale for "
        "each channel, and of 16 bits in the patch projection and the first block."
    )
    return "\n".join([text, "", *lines])


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="", help="by default the bundled ones")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    weights = find_weights(options.weights)
    text = table(weights, options.repeats, options.seeds, options.cache)
    print(text)
    if options.write:
        write_section(RESULTS, "onnx", text)


if __name__ == "__main__":
    main()
