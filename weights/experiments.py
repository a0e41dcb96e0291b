"""Runs from random weights at equal minutes that differ in one setting each.

    python -m weights.experiments CORPUS OUT [key=value ...] [--runs NAME ...]
    python -m benchmarks.quality --baselines none --seeds 3 --weights OUT/*.safetensors

The same command continues what was interrupted. Further words are settings of all runs, for
instance minutes=15 or accelerator=cpu. OUT/NAME.safetensors holds the weights of a run.
EXPERIMENTS.md has the table.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from hear_msm_mae.checkpoints.native import load_checkpoint
from hear_msm_mae.pretrain.export import export

from .refine import ALL, train

BUNDLED = Path(__file__).with_name("hear_msm_mae-small-80x208p16x16.safetensors")
# Steps of 32 and of 128 crops gave equal scores before, see EXPERIMENTS.md.
SHORT = "mix=0", "minutes=15", "batch=32", "base_lr=2e-3", "warmup=0.1"
COMMON = (*ALL, *SHORT, "decoder_depth=2")
LATENTS = "objective=latents", f"teacher={BUNDLED}", "target_norm=batch"
RUNS: dict[str, tuple[str, ...]] = {
    "base": (),
    "base-again": ("seed=1",),
    "decoder-192x4": ("decoder_depth=4",),
    "decoder-192x8": ("decoder_depth=8",),
    "latents": (*LATENTS, "masks=4"),
    "patches-80x4": ("patch_mels=80", "patch_frames=4"),
    "patches-16x8": ("patch_frames=8",),
    "base-size": ("size=base",),
    "procedural-half": ("procedural=0.5",),
    "procedural-all": ("procedural=1",),
    "a-twelfth-of-the-clips": ("holdout=0.917",),
}


def run_all(corpus: str, out: Path, names: Iterable[str], settings: Sequence[str]) -> list[Path]:
    """Run what is missing; the settings are those of all runs. Returns the weights files."""
    files = []
    teacher = load_checkpoint(BUNDLED).config  # whose statistics are those of all runs
    norm = f"norm_mean={teacher.norm_mean}", f"norm_std={teacher.norm_std}"
    for name in names:
        path = out / f"{name}.safetensors"
        if not path.exists():
            places = f"corpus={corpus}", f"run_dir={out / name}"
            train([*places, *norm, *COMMON, *settings, *RUNS[name]])
            export(out / name, path, half=True)
        files.append(path)
    return files


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", help="corpus that `hear-msm-mae prepare` made")
    parser.add_argument("out", type=Path, help="folder for the runs and their weights")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run_all(options.corpus, options.out, options.runs, options.settings)


if __name__ == "__main__":
    main()
