"""The training loop, on Lightning Fabric: one process or many, exactly resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from ..corpus.bank import Bank
from ..files import replacing
from ..mae import MaskedAutoencoder
from . import snapshots
from .hardware import (
    compile_blocks,
    denormals_flushed,
    faster_precision,
    launch,
    place_bank,
    set_attention,
)
from .objectives import LatentPredictor, make_model
from .reporting import Reporter
from .sampling import Sampler, feed, shares
from .settings import Settings
from .signals import Signals
from .step import Stepper, parameter_groups

log = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """Loss or gradient was not finite in too many consecutive steps."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a call of `pretrain`."""

    step: int
    """Steps done."""
    total_steps: int | None
    """Length of the run; None where `minutes` decides."""
    signal: int | None = None
    """The signal that stopped it, None when the run is complete."""

    def __str__(self) -> str:
        return f"step {self.step}" + (f" of {self.total_steps}" if self.total_steps else "")


def pretrain(settings: Settings, corpus: Bank | None = None) -> Outcome:
    """Start a run, or continue the run in `settings.run_dir`.

    Args:
        settings: the settings.
        corpus: an open corpus that replaces the folder `settings.corpus`.

    Returns:
        The number of steps, and whether the run is complete.

    Raises:
        FileNotFoundError, ValueError: a setting is wrong; nothing was written.
        TrainingDiverged: the loss stayed NaN/Inf; the last checkpoint is intact.
        OSError: a checkpoint cannot be written, or the GPU failed; the last one is intact.
    """
    if corpus is None:
        # One process of a node compares the digests.
        corpus = Bank.open(settings.corpus, verify=os.environ.get("LOCAL_RANK", "0") == "0")
    for name, unit in (("n_mels", "mel bins"), ("sample_rate", "Hz")):
        asked, found = getattr(settings.model, name), getattr(corpus, name)
        if asked != found:
            raise ValueError(
                f"{name} is {asked}, but the corpus was prepared with {found} {unit}; set {name}, "
                f"or prepare it again with --{name.replace('_', '-')}"
            )
    teacher = ""  # its digest
    if settings.teacher:
        teacher = hashlib.sha256(Path(settings.teacher).read_bytes()).hexdigest()
    resumed = snapshots.load_latest(settings.run_dir)
    if settings.precision == "auto":
        of_run = resumed.settings.precision if resumed else faster_precision(settings.accelerator)
        settings = dataclasses.replace(settings, precision=of_run)
    if resumed is not None:
        snapshots.check_same_run(resumed, settings, corpus.fingerprint, teacher)
    elif settings.init_from is not None and settings.data_seed is None:
        log.warning(
            "this run draws its crops and masks with seed %d; if the run of init_from used it too, "
            "the same crops come again. Set data_seed to a new number",
            settings.seed,
        )
    fabric = launch(settings)
    if settings.minutes is not None and fabric.world_size > 1:
        raise ValueError(
            f"minutes={settings.minutes} with {fabric.world_size} processes, whose clocks differ; "
            "give steps, samples or epochs, or set devices=1"
        )
    parts = shares(settings, fabric.global_rank, fabric.world_size)
    config = settings.model_config(corpus.mean, corpus.std)
    model = make_model(config, settings, resumed.model if resumed else None)
    sampler = Sampler(place_bank(corpus, settings.bank, fabric.device), settings)
    first = fabric.global_rank == 0
    alone = snapshots.locked(settings.run_dir) if first else contextlib.nullcontext()
    with alone, denormals_flushed(), snapshots.device_failures_named(settings.run_dir):
        outcome = _Run(settings, sampler, fabric, model, resumed, teacher).train(parts)
    if fabric.world_size > 1:
        torch.distributed.destroy_process_group()
    return outcome


class _Run:
    """One process of a run: the model on its device, the position, and the loop."""

    def __init__(
        self,
        settings: Settings,
        sampler: Sampler,
        fabric: Fabric,
        model: MaskedAutoencoder,
        resumed: snapshots.Snapshot | None,
        teacher: str,
    ) -> None:
        self.settings, self.sampler, self.fabric, self.model = settings, sampler, fabric, model
        self.teacher = teacher
        self.total = settings.total_steps(sampler.bank.hours)
        self.progress = resumed.progress if resumed else snapshots.Progress()
        cuda = fabric.device.type == "cuda"
        for network in [model, model.teacher] if isinstance(model, LatentPredictor) else [model]:
            set_attention(network, fabric.device.type != "cpu" or settings.precision == "fp32")
            if cuda if settings.compile is None else settings.compile:
                compile_blocks(network)
        counts = (self.progress.skipped, self.progress.bad_in_a_row)
        groups = parameter_groups(model, settings.weight_decay)
        self.step = Stepper(settings, fabric, model, groups, sampler.arguments, *counts)
        self._require_same_begin()
        if resumed is not None:
            self.step.load_state(resumed.optimizer)
        # Agreement on checkpoints and signals would make processes on GPUs wait for each other.
        self.agree_steps = settings.log_steps if cuda and fabric.world_size > 1 else 1
        self.signals = Signals()

    def _require_same_begin(self) -> None:
        """Raise ValueError if the processes continue from different steps."""
        if self.fabric.world_size == 1:
            return
        mine = (self.progress.step, self.settings.precision)
        # Processes without a checkpoint take part too, otherwise the others would wait forever.
        found: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(found, mine)
        if len(set(found)) > 1:
            raise ValueError(
                f"the processes begin differently (step and precision: {found}); run_dir "
                f"{self.settings.run_dir} must be the same folder for all, and precision=auto "
                "needs equal hardware"
            )

    @property
    def position(self) -> tuple[float, float]:
        """Progress and length of the run, both in steps, or in minutes if these decide."""
        if self.settings.minutes is not None:
            return self.progress.seconds / 60, self.settings.minutes
        return self.progress.step, self.total or 1

    @property
    def done(self) -> bool:
        """Whether the run has reached its length."""
        position, length = self.position
        return position >= length

    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.settings.lr_at(*self.position, step=0.0 if self.settings.minutes else 1.0)

    def train(self, parts: list[range]) -> Outcome:
        """Train until the end of the run or a signal."""
        s, progress = self.settings, self.progress
        if self.done:
            return Outcome(progress.step, self.total)
        reporter = None
        if self.fabric.global_rank == 0:
            reporter = Reporter(s, self.sampler, self.fabric, self.model, progress, self.total)
            with replacing(Path(s.run_dir) / "settings.yaml") as temporary:
                temporary.write_text(s.to_yaml(), encoding="utf-8")
        batches = feed(self.sampler, parts, progress.step, self.fabric.device)
        stop, last_checkpoint = False, time.monotonic()
        started, waited = last_checkpoint - progress.seconds, 0.0
        with self.signals, contextlib.closing(batches), reporter or contextlib.nullcontext():
            while not self.done and not stop:
                before = time.monotonic()
                batch = next(batches)
                waited += time.monotonic() - before
                lr = self.lr()
                self.step(batch, lr)
                progress.step += 1
                now = time.monotonic()
                progress.seconds = now - started
                due, stop = self._agree(0 < s.checkpoint_minutes < (now - last_checkpoint) / 60)
                due |= s.checkpoint_steps > 0 and progress.step % s.checkpoint_steps == 0
                due |= stop or self.done
                if due or progress.step % s.log_steps == 0:
                    self._look(reporter, lr, waited)
                if due:
                    self._checkpoint()
                    last_checkpoint = time.monotonic()
                    if reporter and not stop:
                        reporter.checkpoint(progress.step)
        # Another process may have received the signal.
        number = (self.signals.number or int(signal.SIGTERM)) if stop and not self.done else None
        return Outcome(progress.step, self.total, number)

    def _look(self, reporter: Reporter | None, lr: float, waited: float) -> None:
        """Read the counters from the device, and report them."""
        progress, report = self.progress, self.step.report()
        if reporter:
            reporter.look(progress, report, lr, waited)
        progress.skipped, progress.bad_in_a_row = report.skipped, report.bad_in_a_row
        if report.worst >= self.settings.max_bad_steps:
            kept = snapshots.checkpoints(self.settings.run_dir)
            raise TrainingDiverged(
                f"loss or gradient was NaN/Inf in {report.worst} steps in a row, seen at step "
                f"{progress.step}; the newest checkpoint is {kept[0] if kept else '(none yet)'}. "
                "Lower base_lr, set clip_norm, or check the corpus"
            )

    def _agree(self, due: bool) -> tuple[bool, bool]:
        """Whether the first process says a checkpoint is due, and whether any got a signal."""
        stop = self.signals.number is not None
        if self.fabric.world_size == 1:
            return due, stop
        if self.progress.step % self.agree_steps and not self.done:
            return False, False
        mine = [float(due and self.fabric.global_rank == 0), float(stop)]
        flags = torch.tensor(mine, device=self.fabric.device)
        agreed = self.fabric.all_reduce(flags, reduce_op="sum").tolist()
        return agreed[0] > 0, agreed[1] > 0

    def _checkpoint(self) -> None:
        if self.fabric.global_rank == 0:
            bank = self.sampler.bank
            snapshot = snapshots.Snapshot(
                self.model.state_dict(),
                self.step.optimizer.state_dict(),
                self.progress,
                self.settings,
                (bank.mean, bank.std),
                bank.fingerprint,
                self.teacher,
            )
            snapshots.save(self.settings.run_dir, snapshot, self.settings.keep_last)
        self.fabric.barrier()
