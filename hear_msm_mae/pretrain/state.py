"""Training checkpoints: everything that is needed to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..files import replacing
from .settings import CHANGEABLE, Settings, from_dict

log = logging.getLogger(__name__)

FORMAT = "hear_msm_mae training checkpoint 1"
_NAME = re.compile(r"step-(\d{9})\.pt")


@dataclasses.dataclass
class Progress:
    """Where a run stands; counts of the whole run, also across resumes."""

    step: int = 0
    """Steps done; also the position of the sampler and of the schedule."""
    skipped: int = 0
    """Steps that were skipped because loss or gradient was not finite."""
    bad_in_a_row: int = 0
    """Skipped steps since the last good one."""
    seconds: float = 0.0
    """Wall-clock time spent in training."""


@dataclasses.dataclass
class TrainingState:
    """A checkpoint in memory; tensors are on the CPU."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    progress: Progress
    rng: list[dict[str, Any]]  # one per process
    settings: Settings
    norm: tuple[float, float]  # mean and std of the corpus
    fingerprint: str  # of the corpus


def checkpoint_folder(run_dir: str | Path) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(run_dir) / "checkpoints"


def checkpoints(run_dir: str | Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    folder = checkpoint_folder(run_dir)
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, reverse=True)


@contextlib.contextmanager
def locked(run_dir: str | Path) -> Iterator[None]:
    """Keep other processes from training in the folder.

    Raises:
        ValueError: one does.
    """
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another process trains in run_dir {run_dir}; wait for it, stop it, or choose another"
        ) from None
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == ["lock"]:  # the run was refused
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def save(run_dir: str | Path, state: TrainingState, keep_last: int) -> Path:
    """Write a checkpoint atomically and delete all but the newest `keep_last`.

    Newer ones could not be read, as the run went on from before them; they become `*.damaged`.
    """
    path = checkpoint_folder(run_dir) / f"step-{state.progress.step:09d}.pt"
    content = {
        "format": FORMAT,
        "model": state.model,
        "optimizer": state.optimizer,
        "progress": dataclasses.asdict(state.progress),
        "rng": state.rng,
        "settings": dataclasses.asdict(state.settings),
        "norm": state.norm,
        "fingerprint": state.fingerprint,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)
        with open(temporary, "rb+") as file:  # on the disk before the name points to it
            os.fsync(file.fileno())
    there = checkpoints(run_dir)
    for newer in there[: there.index(path)]:
        newer.replace(newer.with_suffix(".damaged"))
    for old in there[there.index(path) + keep_last :]:
        old.unlink(missing_ok=True)
    for left in checkpoint_folder(run_dir).glob(".step-*.pt"):  # of a process that was killed
        left.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> TrainingState:
    """Read a checkpoint of `save`.

    Raises:
        ValueError: the file is damaged (checked by CRC) or not a training checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
            if damaged := archive.testzip():
                raise ValueError(f"{path} is damaged: wrong checksum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"{path} is not a {FORMAT}")
        return TrainingState(
            content["model"],
            content["optimizer"],
            Progress(**content["progress"]),
            content["rng"],
            from_dict(content["settings"]),
            tuple(content["norm"]),
            content["fingerprint"],
        )
    except ValueError:
        raise
    except Exception as error:  # any of zipfile's, pickle's and torch's
        raise ValueError(f"{path} is damaged or not a training checkpoint: {error}") from error


def load_latest(run_dir: str | Path) -> TrainingState | None:
    """The newest readable checkpoint of a run; None when the run has not written any.

    Raises:
        ValueError: there are checkpoints but none can be read.
    """
    paths = checkpoints(run_dir)
    for path in paths:
        try:
            return load(path)
        except ValueError as error:
            log.warning("%s; trying the checkpoint before it", error)
    if paths:
        raise ValueError(
            f"none of the {len(paths)} checkpoints in {checkpoint_folder(run_dir)} can be read; "
            "move them away to start again"
        )
    return None


def check_same_run(state: TrainingState, settings: Settings, fingerprint: str) -> None:
    """Refuse to resume a run with settings or a corpus that would make it another one.

    Raises:
        ValueError: names each setting with its old and new value.
    """
    old, new = dataclasses.asdict(state.settings), dataclasses.asdict(settings)
    changed = [
        f"{name} was {old[name]!r} and is now {new[name]!r}"
        for name in old
        if name not in CHANGEABLE and old[name] != new[name]
    ]
    if state.fingerprint != fingerprint:
        changed.append(
            f"corpus {settings.corpus} has other content than the one the run began with "
            f"(fingerprint {state.fingerprint[:12]}, now {fingerprint[:12]})"
        )
    if changed:
        raise ValueError(
            f"the run in {settings.run_dir} cannot be resumed: {'; '.join(changed)}. Set it back, "
            "or choose another run_dir (init_from=WEIGHTS goes on from exported weights)"
        )


def rng_state() -> dict[str, Any]:
    """States of the global random generators of this process.

    Training draws nothing from them (see sampling.py); kept so that user code may.
    """
    _, key, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [np.asarray(key).tolist(), int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Inverse of `rng_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    key, position, has_gauss, gauss = (*state["numpy"], 0, 0.0)[:4]
    words = np.array(key, dtype=np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def on_cpu(value: Any) -> Any:
    """A nested state dictionary with its tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {k: on_cpu(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_cpu(v) for v in value)
    return value
