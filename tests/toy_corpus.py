"""A small in-memory corpus for the pretraining tests, and a training program on it.

`python tests/toy_corpus.py key=value ...` trains on it, as a subprocess that can be killed.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hear_msm_mae.corpus.bank import Bank
from hear_msm_mae.log_mel import SILENCE
from hear_msm_mae.pretrain.parsing import from_dict
from hear_msm_mae.pretrain.settings import Settings

# A model that takes milliseconds per step: 5 x 2 patches, 32 channels.
QUICK = {
    "size": "tiny",
    "width": 32,
    "depth": 2,
    "heads": 2,
    "unit_frames": 32,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "steps": 12,
    "batch": 8,
    "base_lr": 0.01,
    "precision": "fp32",
    "checkpoint_minutes": 0.0,
    "pictures": 0,
    "holdout_crops": 0,
    "holdout": 0.0,
}


def ToyCorpus(
    frames: tuple[int, ...] = (100, 40, 20, 64),
    sources: tuple[str, ...] = ("a", "a", "b", "b"),
    poisoned: tuple[int, ...] = (),
    mean: float = -8.0,
    std: float = 4.0,
    n_mels: int = 80,
    fingerprint: str = "f" * 64,
) -> Bank:
    """A bank with clips of moving harmonics; a clip in `poisoned` holds NaN."""
    clips = [harmonics(clip, np.arange(length), n_mels) for clip, length in enumerate(frames)]
    for clip in poisoned:
        clips[clip][:] = np.nan
    lengths = torch.tensor(frames)
    return Bank(
        torch.from_numpy(np.concatenate(clips, axis=1).T.copy()),
        lengths.cumsum(0) - lengths,
        lengths,
        list(sources),
        mean,
        std,
        fingerprint,
    )


def harmonics(clip: int, frame: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """(f, t) float16: each clip has its own pitch and rhythm."""
    bins = np.arange(n_mels)[:, None]
    pitch = 8 + 3 * clip % 11 + 0.5 * np.sin(frame / (7 + clip))
    level = 1 + np.cos(frame / (5 + clip % 3))
    wave = level * (3 * np.cos(2 * np.pi * bins / pitch) + 1) - 0.08 * bins - 5
    return np.maximum(wave, SILENCE).astype(np.float16)


def quick(run_dir: Path | str, **changes: Any) -> Settings:
    """Settings of a run that takes a second."""
    return from_dict({**QUICK, "run_dir": str(run_dir), **changes})


def main() -> int:
    import yaml

    from hear_msm_mae.pretrain import hardware, train

    hardware.PEAK_SIZE = 64
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    pairs = (text.split("=", 1) for text in sys.argv[1:])
    changes = {key: yaml.safe_load(value) for key, value in pairs}
    poisoned = tuple(changes.pop("poisoned", ()))
    outcome = train.pretrain(quick(**changes), corpus=ToyCorpus(poisoned=poisoned))
    return 0 if outcome.signal is None else 128 + outcome.signal


if __name__ == "__main__":
    sys.exit(main())
