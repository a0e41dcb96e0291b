"""What pretraining runs leave: newest state, scalars, files."""

from __future__ import annotations

import sys
import types

import torch

from hear_msm_mae.pretrain import snapshots
from hear_msm_mae.pretrain.reporting import FOLDER

__all__ = ["identical", "newest", "scalars", "snapshot"]


def newest(run_dir):
    return snapshots.load_latest(run_dir)


def scalars(run_dir):
    """Values of a run's scalars by name and step; empty if there is no run."""
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))  # no TensorFlow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / FOLDER), {"scalars": 0})  # all of them
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}


def identical(first, second):
    """Whether two runs ended in the same bits: weights and optimiser."""
    weights = all(torch.equal(first.model[k], second.model[k]) for k in first.model)
    moments = [
        all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(
            first.optimizer["state"].values(), second.optimizer["state"].values(), strict=True
        )
    ]
    return weights and all(moments) and first.progress.step == second.progress.step


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
