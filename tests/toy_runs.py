"""What pretraining runs leave: newest state, scalars, files."""

from __future__ import annotations

import torch

from hear_msm_mae.pretrain import snapshots
from hear_msm_mae.pretrain.scalars import read as scalars

__all__ = ["identical", "newest", "scalars", "snapshot"]


def newest(run_dir):
    return snapshots.load_latest(run_dir)


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
