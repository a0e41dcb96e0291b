"""Reports of a run: log lines, TensorBoard scalars, pictures and probes at checkpoints."""

from __future__ import annotations

import logging
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.fabric import Fabric

from ..mae import MaskedAutoencoder
from .evaluate import Evaluation
from .hardware import matmul_peak, training_flops
from .objectives import LatentPredictor
from .sampling import Sampler
from .settings import Settings
from .snapshots import Progress
from .step import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

FOLDER = "tensorboard"  # in the folder of a run
SECONDS_PER_LINE = 20.0


class Reporter:
    """Reports of one run, made by its first process.

    Reports do not change the training: they draw no global random numbers and only read the model.
    """

    def __init__(
        self,
        settings: Settings,
        sampler: Sampler,
        fabric: Fabric,
        model: MaskedAutoencoder,
        progress: Progress,
        total: int | None,
    ) -> None:
        self.settings, self.total = settings, total
        teacher = model.teacher.config if isinstance(model, LatentPredictor) else None
        self.flops = training_flops(settings, teacher) * settings.batch
        self.peak = fabric.world_size * matmul_peak(fabric.device, settings.precision)
        self.evaluation = Evaluation(settings, sampler.bank, fabric, model)
        self.writer = scalar_writer(settings.run_dir, progress.step + 1)
        log.info(
            "step %d of %s, %.1f GFLOP per sample, matmul peak %.0f GFLOP/s, %d process(es), "
            "corpus in the memory of the %s",
            progress.step,
            total or f"{settings.minutes:g} minutes",
            self.flops / settings.batch / 1e9,
            self.peak / 1e9,
            fabric.world_size,
            "GPU" if sampler.bank.device.type == "cuda" else "host",
        )
        self.step, self.waited = progress.step, 0.0  # at the last look
        self.looked = self.line = time.monotonic()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.close()

    def look(self, progress: Progress, report: Report, lr: float, waited: float) -> None:
        """Write the scalars of a step whose counters were read.

        Args:
            progress: the run's progress; its counts are those of the last look.
            report: counters of the step.
            lr: its learning rate.
            waited: seconds that the loop has waited for data.
        """
        if skipped := report.skipped - progress.skipped:
            log.warning(
                "%d steps skipped up to step %d: loss or gradient norm was not finite",
                skipped,
                progress.step,
            )
        s, now = self.settings, time.monotonic()
        elapsed = max(now - self.looked, 1e-9)
        rate = (progress.step - self.step) / elapsed  # steps per second
        values = {
            "loss": report.loss,
            "lr": lr,
            "gradient_norm": report.norm,
            "skipped_steps": report.skipped,
            "samples_per_second": rate * s.batch,
            "data_wait_share": (waited - self.waited) / elapsed,
            "matmul_share": rate * self.flops / self.peak,
        }
        for name, value in values.items():
            self.writer.add_scalar(name, value, progress.step)
        self.looked, self.waited, self.step = now, waited, progress.step
        if self.total is None:
            remaining = max(0.0, 60 * (s.minutes or 0.0) - progress.seconds)
        else:
            remaining = (self.total - progress.step) / rate
        if now - self.line > SECONDS_PER_LINE or not remaining:
            self.line = now
            log.info(
                "step %d%s  loss %.4f  lr %.2e  %.1f samples/s  data wait %.1f%%  matmul peak "
                "%.0f%%  ETA %.0f min",
                progress.step,
                f"/{self.total}" if self.total else "",
                report.loss,
                lr,
                values["samples_per_second"],
                100 * values["data_wait_share"],
                100 * values["matmul_share"],
                remaining / 60,
            )

    def checkpoint(self, step: int) -> None:
        """Write held-out loss, reconstruction picture and linear probe after a checkpoint."""
        scores = self.evaluation.run(step)
        for name, value in scores.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
        text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.info("checkpoint at step %d  %s", step, text)
        self.looked = time.monotonic()  # the time for this is not that of the next steps


def scalar_writer(run_dir: str | Path, first: int) -> SummaryWriter:
    """A TensorBoard writer; values of a killed run from step `first` on are dropped."""
    # If a module of this name exists, TensorBoard uses its own replacement of TensorFlow, whose
    # import would take up to a minute.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(Path(run_dir) / FOLDER), purge_step=first)
