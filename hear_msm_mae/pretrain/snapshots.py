"""Training checkpoints, from which a run continues exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from ..files import replacing
from .parsing import from_dict
from .settings import CHANGEABLE, Settings

log = logging.getLogger(__name__)

FORMAT = "hear_msm_mae training checkpoint 2"
_NAME = re.compile(r"step-(\d{9})\.pt")
T = TypeVar("T")


@dataclasses.dataclass
class Progress:
    """Progress of a run, counted from its start, also after it was resumed."""

    step: int = 0
    """Steps done; also the position of the sampler and of the schedule."""
    skipped: int = 0
    """Steps that were skipped because loss or gradient was not finite."""
    bad_in_a_row: int = 0
    """Skipped steps since the last good one."""
    seconds: float = 0.0
    """Wall-clock time spent in training."""


@dataclasses.dataclass
class Snapshot:
    """A checkpoint in memory."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    progress: Progress
    settings: Settings
    norm: tuple[float, float]  # mean and std of the corpus
    fingerprint: str  # of the corpus
    teacher: str  # SHA-256 of the teacher's file; empty without a teacher


def checkpoint_folder(run_dir: str | Path) -> Path:
    """The folder of a run's checkpoints."""
    return Path(run_dir) / "checkpoints"


def checkpoints(run_dir: str | Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    folder = checkpoint_folder(run_dir)
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, reverse=True)


@contextlib.contextmanager
def locked(run_dir: str | Path) -> Iterator[None]:
    """Lock the folder against other training processes.

    Raises:
        ValueError: another process trains in it.
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


def save(run_dir: str | Path, snapshot: Snapshot, keep_last: int) -> Path:
    """Write a checkpoint atomically and delete all but the newest `keep_last`.

    Checkpoints of later steps were unreadable when the run was resumed; they become `*.damaged`.
    """
    content = {
        **vars(snapshot),
        "format": FORMAT,
        "progress": vars(snapshot.progress),
        "settings": snapshot.settings.to_dict(),
    }
    return write(run_dir, snapshot.progress.step, content, keep_last)


def write(run_dir: str | Path, step: int, content: dict[str, Any], keep_last: int) -> Path:
    """Like `save`, for any kind of run; `content["format"]` names the kind."""
    path = checkpoint_folder(run_dir) / f"step-{step:09d}.pt"
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # such as a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())
    there = checkpoints(run_dir)
    for newer in there[: there.index(path)]:
        newer.replace(newer.with_suffix(".damaged"))
    for old in there[there.index(path) + keep_last :]:
        old.unlink(missing_ok=True)
    for left in checkpoint_folder(run_dir).glob(".step-*.pt"):  # of a process that was killed
        left.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> Snapshot:
    """Read a checkpoint of `save`; raises like `read`."""
    content = read(path, FORMAT)
    content["progress"] = Progress(**content["progress"])
    content["settings"] = from_dict(content["settings"])
    return Snapshot(**content)


def read(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a file of `write`, without its format.

    Args:
        path: the file.
        kind: the expected format.

    Raises:
        ValueError: the file is damaged (checked by CRC), is not such a checkpoint, or was written
            by an earlier release.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
            damaged = archive.testzip()
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = content.pop("format")
    except Exception as error:  # any of zipfile's, pickle's and torch's
        raise ValueError(f"{path} is damaged or not a training checkpoint: {error}") from error
    if damaged:
        raise ValueError(f"{path} is damaged: wrong checksum of {damaged}")
    if found != kind:
        raise ValueError(
            f"{path} is not a {kind}; the release that wrote it can continue it or export "
            "weights for init_from"
        )
    return content


def load_latest(run_dir: str | Path) -> Snapshot | None:
    """The newest readable checkpoint of a run; None if there are no checkpoints.

    Raises:
        ValueError: there are checkpoints, but none can be read.
    """
    return latest(run_dir, load)


def latest(run_dir: str | Path, load: Callable[[Path], T]) -> T | None:
    """Like `load_latest`, for any kind of run; a function reads its checkpoints."""
    paths = checkpoints(run_dir)
    reason = ""
    for path in paths:
        try:
            return load(path)
        except ValueError as error:
            log.warning("%s; trying the checkpoint before it", error)
            reason = str(error)
    if paths:
        raise ValueError(
            f"none of the {len(paths)} checkpoints in {checkpoint_folder(run_dir)} can be read "
            f"({reason}); move them away to start again"
        )
    return None


def check_same_run(snapshot: Snapshot, settings: Settings, fingerprint: str, teacher: str) -> None:
    """Raise ValueError, with old and new values, if settings, corpus or teacher are others."""
    changed = differences(snapshot.settings.to_dict(), settings.to_dict(), CHANGEABLE)
    if snapshot.fingerprint != fingerprint:
        changed.append(
            f"corpus {settings.corpus} has other content than the one the run began with "
            f"(fingerprint {snapshot.fingerprint[:12]}, now {fingerprint[:12]})"
        )
    if snapshot.teacher != teacher:
        changed.append(f"teacher {settings.teacher} is another file than the run began with")
    if changed:
        raise ValueError(
            f"the run in {settings.run_dir} cannot be resumed: {'; '.join(changed)}. Set it back, "
            "or choose another run_dir (init_from=WEIGHTS continues from exported weights)"
        )


def differences(old: dict[str, Any], new: dict[str, Any], may: Container[str] = ()) -> list[str]:
    """Differing settings that must be equal, with both values."""
    return [
        f"{name} was {old[name]!r} and is now {new[name]!r}"
        for name in old
        if name not in may and old[name] != new[name]
    ]


@contextlib.contextmanager
def device_failures_named(run_dir: str | Path) -> Iterator[None]:
    """Turn failures of a GPU, or of its memory, into OSError.

    Raises:
        OSError: the message names the failure, the newest checkpoint and what to do.
    """
    try:
        yield
    except (
        torch.cuda.OutOfMemoryError,
        getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError),
    ) as e:
        kept = checkpoints(run_dir)
        full = "raise accumulation, or set bank=host; " if "memory" in str(e) else ""
        raise OSError(
            f"the GPU failed: {str(e).splitlines()[0]}; the newest checkpoint is "
            f"{kept[0] if kept else '(none yet)'}; {full}repeat the command to continue from it"
        ) from e
