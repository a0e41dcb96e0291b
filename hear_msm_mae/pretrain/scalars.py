"""Write and read the TensorBoard files of a run, without TensorFlow."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # in the folder of a run


def writer(run_dir: str | Path, first: int) -> SummaryWriter:
    """A writer; values of a killed run from step `first` on are dropped."""
    _without_tensorflow()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(Path(run_dir) / FOLDER), purge_step=first)


def read(run_dir: str | Path) -> dict[str, dict[int, float]]:
    """Values of a run's scalars by name and step; empty if there is no run."""
    _without_tensorflow()
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(Path(run_dir) / FOLDER), {"scalars": 0})  # all of them
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}


def _without_tensorflow() -> None:
    """Keep TensorBoard from importing TensorFlow, which takes up to a minute.

    If a module of this name exists, TensorBoard uses its own replacement.
    """
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
