"""Watching a run: progress line, TensorBoard scalars, pictures and probes at checkpoints."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lightning.fabric import Fabric
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..mae import MaskedAutoencoder
from .evaluate import Evaluation
from .sampling import CorpusLike
from .settings import Settings
from .speed import matmul_peak, training_flops
from .state import Progress

log = logging.getLogger(__name__)

SECONDS_PER_LOG_LINE = 60.0  # where there is no terminal for a progress line


class Watcher:
    """Reports of one run. Only the first process reports; on others every method does nothing.

    Nothing here changes what is computed: no global random numbers are drawn, and the model is
    only read.
    """

    def __init__(
        self,
        settings: Settings,
        corpus: CorpusLike,
        fabric: Fabric,
        model: MaskedAutoencoder,
        first: int,
        total: int,
    ) -> None:
        self.settings, self.first, self.total = settings, first, total
        self.active = fabric.global_rank == 0 and first < total
        if not self.active:
            return
        self.flops = training_flops(model.config, settings.mask_ratio) * settings.batch
        peak = matmul_peak(fabric.device, settings.precision)
        self.peak = fabric.world_size * peak
        if settings.precision == "bf16" and (plain := matmul_peak(fabric.device, "fp32")) > peak:
            log.warning(
                "bfloat16 is slower than float32 on this machine (matmul peak %.0f against %.0f "
                "GFLOP/s); precision=fp32 would train faster",
                peak / 1e9,
                plain / 1e9,
            )
        self.evaluation = Evaluation(settings, corpus, fabric, model)
        # What a killed run wrote behind the checkpoint, which has the scalars of its own step.
        folder = Path(settings.run_dir) / "tensorboard"
        self.writer = SummaryWriter(str(folder), purge_step=first + 1)
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=first, unit="step", dynamic_ncols=True, disable=not self.terminal
        )
        log.info(
            "step %d of %d, %.1f GFLOP per crop, matmul peak %.0f GFLOP/s, %d process(es)",
            first,
            total,
            self.flops / settings.batch / 1e9,
            self.peak / 1e9,
            fabric.world_size,
        )

    def __enter__(self) -> Watcher:
        self.waited = self.waited_before = 0.0
        self.steps = self.steps_before = 0
        self.began = self.reported = self.line = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.active:
            self.bar.close()
            self.writer.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside counts as waiting for data."""
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start

    def step(self, progress: Progress, loss: float, norm: float, lr: float) -> None:
        """After each step: every `log_steps` steps the scalars are written."""
        self.steps += 1
        if not self.active:
            return
        self.bar.update()
        if progress.bad_in_a_row:
            log.warning("step %d skipped: loss %g, gradient norm %g", progress.step, loss, norm)
        s, now = self.settings, time.monotonic()
        if progress.step % s.log_steps and progress.step != self.total:
            return
        elapsed = max(now - self.reported, 1e-9)
        rate = (self.steps - self.steps_before) / elapsed  # steps per second
        scalars = {
            "loss": loss,
            "lr": lr,
            "gradient_norm": norm,
            "skipped_steps": progress.skipped,
            "samples_per_second": rate * s.batch,
            "data_wait_share": (self.waited - self.waited_before) / elapsed,
            "matmul_share": rate * self.flops / self.peak,
        }
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, progress.step)
        self.reported, self.waited_before, self.steps_before = now, self.waited, self.steps
        remaining = (self.total - progress.step) * (now - self.began) / self.steps
        line = (
            f"loss {loss:.4f}  lr {lr:.2e}  {scalars['samples_per_second']:.1f} samples/s  "
            f"data wait {scalars['data_wait_share']:.1%}  "
            f"matmul peak {scalars['matmul_share']:.0%}"
        )
        self.bar.set_postfix_str(line)
        if not self.terminal and (
            now - self.line > SECONDS_PER_LOG_LINE or progress.step == self.total
        ):
            self.line = now
            minutes = remaining / 60
            log.info("step %d/%d  %s  ETA %.0f min", progress.step, self.total, line, minutes)

    def checkpoint(self, step: int) -> None:
        """After each checkpoint: held-out loss, reconstruction picture, linear probe."""
        if not self.active:
            return
        start = time.monotonic()
        scores = self.evaluation.run(step)
        for name, value in scores.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
        text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.info("checkpoint at step %d  %s", step, text)
        spent = time.monotonic() - start  # is not the time of a step
        self.began, self.reported = self.began + spent, self.reported + spent
