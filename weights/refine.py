"""Refine weights on a corpus: runs on latents and on pixels, and the mean of their weights.

    python -m weights.refine CORPUS START OUT [key=value ...]

START is a weights file with its decoder: the start of all runs, and the teacher of those on
latents. The same command continues what was interrupted; the runs are kept in OUT.runs. Further
words are settings of pretraining for all runs, for instance accelerator=cpu. OUT holds the mean of
START and of the runs, as float16.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hear_msm_mae.checkpoints.layout import ENCODER
from hear_msm_mae.checkpoints.native import Checkpoint, load_checkpoint, save_checkpoint
from hear_msm_mae.pretrain.export import export
from hear_msm_mae.pretrain.parsing import load_recipe
from hear_msm_mae.pretrain.train import pretrain

# Of the corpus of the bundled weights. Speech and sounds are drawn more often than their hours.
ALL = (
    "source_weights={speech: 1.5, music: 1.2, sound: 1.1, environment: 0.4, midi: 0.5, "
    "physical: 0.2, tones: 0.1, rooms: 0.3}",
    *("tilt_db=0", "holdout=0", "holdout_crops=0", "pictures=0", "minutes=null"),
)
LATENTS = "objective=latents", "mix=0"
RUNS = {
    "latents-short": (
        *(*LATENTS, "target_norm=clip", "masks=2", "decoder_depth=4", "samples=12288"),
        *("batch=64", "base_lr=4e-4", "warmup=0.1", "data_seed=77"),
    ),
    "latents-long": (
        *(*LATENTS, "target_norm=batch", "masks=4", "decoder_depth=2", "samples=166144"),
        *("batch=128", "base_lr=3e-4", "warmup=0.06", "data_seed=101"),
    ),
    "pixels": (
        *("mix=0.15", "samples=121984"),
        *("batch=64", "base_lr=4e-4", "warmup=0.06", "data_seed=202"),
    ),
}
PARTS = {"start": 0.3, "latents-short": 0.2, "latents-long": 0.25, "pixels": 0.25}  # of the mean


def mean_of(parts: Sequence[tuple[Checkpoint, float]]) -> Checkpoint:
    """Weighted mean of weights with a common origin; decoders where a part has one.

    Args:
        parts: checkpoints of the same sizes, and their shares. The configuration is that of the
            first.

    Raises:
        ValueError: the sizes differ.
    """
    first = parts[0][0]
    if len({frozenset(x.part(ENCODER)) for x, _ in parts}) > 1:
        raise ValueError("the encoders have different numbers of blocks")
    tensors: dict[str, Tensor] = {}
    for name in first.tensors:
        found = [(x.tensors[name], share) for x, share in parts if name in x.tensors]
        shapes = {tensor.shape for tensor, _ in found}
        if len(shapes) > 1:
            raise ValueError(f"{name} has different shapes: {sorted(map(tuple, shapes))}")
        shares = torch.tensor([share for _, share in found], dtype=torch.float64)
        stacked = torch.stack([tensor.double() for tensor, _ in found], dim=-1)
        tensors[name] = (stacked @ (shares / shares.sum())).float()
    return Checkpoint(first.config, tensors)


def train(words: Sequence[str]) -> None:
    """Train to the end of a run with these settings; SystemExit after a signal."""
    outcome = pretrain(load_recipe("small-gpu", words))
    if outcome.signal is not None:  # the run is not complete, and the same command continues it
        raise SystemExit(128 + outcome.signal)


def refine(corpus: str, start: Path, out: Path, settings: Sequence[str]) -> Path:
    """Run what is missing, and write the mean. The settings are those of all runs."""
    origin = load_checkpoint(start)
    config = origin.config
    common = (
        *(f"corpus={corpus}", f"init_from={start}"),
        *(f"norm_mean={config.norm_mean}", f"norm_std={config.norm_std}"),
        *ALL,
    )
    parts = [(origin, PARTS["start"])]
    for name, own in RUNS.items():
        folder = out.with_name(f"{out.name}.runs") / name
        teacher = [f"teacher={start}"] if "objective=latents" in own else []
        words = [*common, *own, *teacher, f"run_dir={folder}", *settings]
        train(words)
        parts.append((load_checkpoint(export(folder, f"{folder}.safetensors")), PARTS[name]))
    save_checkpoint(out, mean_of(parts), half=True)
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", help="corpus that `hear-msm-mae prepare` made")
    parser.add_argument("start", type=Path, help="weights with their decoder")
    parser.add_argument("out", type=Path, help="file to write, .safetensors")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.info("%s", refine(options.corpus, options.start, options.out, options.settings))


if __name__ == "__main__":
    main()
