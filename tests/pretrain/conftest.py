"""Pretraining runs that several test files share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy_corpus import ToyCorpus, quick

from hear_msm_mae.pretrain import hardware, snapshots
from hear_msm_mae.pretrain.train import pretrain


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A run of 12 steps with checkpoints at 4, 8 and 12; only to be read."""
    folder = tmp_path_factory.mktemp("finished")
    peak_size, hardware.PEAK_SIZE = hardware.PEAK_SIZE, 64
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(quick(folder, checkpoint_steps=4), corpus=ToyCorpus())
    torch.set_num_threads(threads)
    hardware.PEAK_SIZE = peak_size
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of it in which the newest checkpoint is that of step 8."""
    shutil.copytree(finished, tmp_path / "run")
    snapshots.checkpoints(tmp_path / "run")[0].unlink()
    return tmp_path / "run"


@pytest.fixture
def small_and_alone(monkeypatch) -> Iterator[None]:
    """One thread, and a peak that is measured in no time."""
    monkeypatch.setattr(hardware, "PEAK_SIZE", 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
