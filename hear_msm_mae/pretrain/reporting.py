"""Reports of a run: progress line, TensorBoard scalars, pictures and probes at checkpoints."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from lightning.fabric import Fabric
from tqdm import tqdm

from ..mae import MaskedAutoencoder
from . import scalars
from .evaluate import Evaluation
from .hardware import matmul_peak, training_flops
from .objectives import LatentPredictor
from .sampling import Sampler
from .settings import Settings
from .snapshots import Progress
from .step import Report

log = logging.getLogger(__name__)

SECONDS_PER_LOG_LINE = 60.0  # without a terminal for the progress line


class Reporter:
    """Reports of one run. Only the first process reports; in others every method does nothing.

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
        self.settings, self.first, self.total = settings, progress.step, total
        minutes = settings.minutes or 0.0
        done = progress.seconds >= 60 * minutes if total is None else self.first >= total
        self.active = fabric.global_rank == 0 and not done
        if not self.active:
            return
        teacher = model.teacher.config if isinstance(model, LatentPredictor) else None
        self.flops = training_flops(settings, teacher) * settings.batch
        peak = matmul_peak(fabric.device, settings.precision)
        self.peak = fabric.world_size * peak
        if settings.precision == "bf16" and (plain := matmul_peak(fabric.device, "fp32")) > peak:
            log.warning(
                "bfloat16 is slower than float32 on this machine (matmul peak %.0f against %.0f "
                "GFLOP/s); precision=fp32 would train faster",
                peak / 1e9,
                plain / 1e9,
            )
        self.evaluation = Evaluation(settings, sampler.bank, fabric, model)
        self.writer = scalars.writer(settings.run_dir, self.first + 1)
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=self.first,
            unit="step",
            dynamic_ncols=True,
            disable=not self.terminal,
        )
        log.info(
            "step %d of %s, %.1f GFLOP per sample, matmul peak %.0f GFLOP/s, %d process(es), "
            "corpus in the memory of the %s",
            self.first,
            total or f"{settings.minutes:g} minutes",
            self.flops / settings.batch / 1e9,
            self.peak / 1e9,
            fabric.world_size,
            "GPU" if sampler.bank.device.type == "cuda" else "host",
        )

    def __enter__(self) -> Reporter:
        self.waited = self.waited_before = 0.0
        self.steps = self.steps_before = 0
        self.began = self.reported = self.line = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self.active:
            self.bar.close()
            self.writer.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start

    def advance(self) -> None:
        """Show the progress after a step."""
        self.steps += 1
        if self.active:
            self.bar.update()

    def look(self, progress: Progress, report: Report, lr: float) -> None:
        """Write the scalars of a step whose counters were read."""
        if not self.active:
            return
        if skipped := report.skipped - progress.skipped:
            log.warning(
                "%d steps skipped up to step %d: loss or gradient norm was not finite",
                skipped,
                progress.step,
            )
        s, now = self.settings, time.monotonic()
        steps = self.steps + 1 - self.steps_before
        elapsed = max(now - self.reported, 1e-9)
        rate = steps / elapsed  # steps per second
        values = {
            "loss": report.loss,
            "lr": lr,
            "gradient_norm": report.norm,
            "skipped_steps": report.skipped,
            "samples_per_second": rate * s.batch,
            "data_wait_share": (self.waited - self.waited_before) / elapsed,
            "matmul_share": rate * self.flops / self.peak,
        }
        for name, value in values.items():
            self.writer.add_scalar(name, value, progress.step)
        self.reported, self.waited_before, self.steps_before = now, self.waited, self.steps + 1
        line = (
            f"loss {report.loss:.4f}  lr {lr:.2e}  {values['samples_per_second']:.1f} samples/s  "
            f"data wait {values['data_wait_share']:.1%}  "
            f"matmul peak {values['matmul_share']:.0%}"
        )
        self.bar.set_postfix_str(line)
        if self.total is None:
            remaining = max(0.0, 60 * (s.minutes or 0.0) - progress.seconds)
        else:
            remaining = (self.total - progress.step) * (now - self.began) / (self.steps + 1)
        if not self.terminal and (now - self.line > SECONDS_PER_LOG_LINE or not remaining):
            self.line = now
            of = f"/{self.total}" if self.total else ""
            log.info("step %d%s  %s  ETA %.0f min", progress.step, of, line, remaining / 60)

    def checkpoint(self, step: int) -> None:
        """Write held-out loss, reconstruction picture and linear probe after a checkpoint."""
        if not self.active:
            return
        start = time.monotonic()
        scores = self.evaluation.run(step)
        for name, value in scores.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
        text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.info("checkpoint at step %d  %s", step, text)
        spent = time.monotonic() - start  # excluded from the time per step
        self.began, self.reported = self.began + spent, self.reported + spent
