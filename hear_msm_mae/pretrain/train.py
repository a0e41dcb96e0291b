"""The training loop, on Lightning Fabric: one process or many, exactly resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ..checkpoints.native import Checkpoint, save_checkpoint, state_tensors
from ..files import replacing
from ..mae import MaskedAutoencoder
from . import state as states
from .engine import denormals_flushed, launch, make_model, make_optimizer, set_attention
from .sampling import Batch, CorpusLike, CropSampler, StepDataset, batches, split_order
from .settings import Settings
from .speed import faster_precision
from .watch import Watcher

log = logging.getLogger(__name__)

SECOND_CTRL_C_SECONDS = 1.0


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not finite."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `pretrain` ended."""

    step: int
    """Steps done."""
    total_steps: int
    """Length of the run."""
    signal: int | None = None
    """The signal that stopped it, None when the run is complete."""

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.step >= self.total_steps


def pretrain(settings: Settings, resume: bool = True, corpus: CorpusLike | None = None) -> Outcome:
    """Train, or go on with the run in `settings.run_dir`.

    Args:
        settings: see settings.py.
        resume: whether an existing run is continued; otherwise it is refused.
        corpus: an open corpus instead of the one in the folder `settings.corpus`.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: refused before anything was written; the
            message names the setting.
        TrainingDiverged: the loss stayed NaN/Inf; the last checkpoint is intact.
    """
    corpus = corpus if corpus is not None else _open_corpus(settings)
    if corpus.n_mels != settings.n_mels:
        raise ValueError(
            f"n_mels is {settings.n_mels}, but the corpus was prepared with {corpus.n_mels} mel "
            "bins; set n_mels or prepare it again"
        )
    config = settings.model_config(corpus.mean, corpus.std)
    resumed = states.load_latest(settings.run_dir)
    if settings.precision == "auto":
        of_run = resumed.settings.precision if resumed else faster_precision(settings.accelerator)
        settings = dataclasses.replace(settings, precision=of_run)
    if resumed is not None:
        if not resume:
            raise FileExistsError(f"run_dir {settings.run_dir} holds a run; choose another one")
        states.check_same_run(resumed, settings, corpus.fingerprint)
    elif settings.init_from is not None and settings.data_seed is None:
        log.warning(
            "this run draws its crops and masks by seed %d; if the run that made init_from did so "
            "too, it sees the same ones again. data_seed=N draws others",
            settings.seed,
        )
    fabric = launch(settings)
    dataset = StepDataset(CropSampler(corpus, settings), fabric.global_rank, fabric.world_size)
    model = make_model(config, settings, resumed.model if resumed else None)
    first = fabric.global_rank == 0
    alone = states.locked(settings.run_dir) if first else contextlib.nullcontext()
    with alone, denormals_flushed():
        run = _Run(settings, corpus, fabric, model, resumed)
        outcome = run.train(dataset)
    if fabric.world_size > 1:
        torch.distributed.destroy_process_group()
    return outcome


def export(
    run_dir: str | Path,
    out_path: str | Path,
    encoder_only: bool = False,
    half: bool = False,
    layer: int | None = None,
    embedding_scale: float = 1.0,
) -> Path:
    """Write the weights of a run's newest checkpoint as a file that `load_model` takes.

    Args:
        run_dir: folder of the run.
        out_path: file to write, `.safetensors`.
        encoder_only: leave out the decoder (reconstructions need it, embeddings do not).
        half: store float16.
        layer: block that `load_model` reads by default, see `ModelConfig.layer`.
        embedding_scale: factor of the embeddings, see `ModelConfig.embedding_scale`.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        ValueError: no checkpoint can be read, a wrong suffix, no such block, or no such factor.
    """
    out_path = Path(out_path)
    if out_path.suffix != ".safetensors":
        raise ValueError(f"out_path must end in .safetensors, got {str(out_path)!r}")
    run = states.load_latest(run_dir)
    if run is None:
        raise FileNotFoundError(f"no checkpoints of a run in {run_dir}")
    config = run.settings.model_config(*run.norm)
    model = MaskedAutoencoder(config)
    model.load_state_dict(run.model)
    tensors = state_tensors(model.encoder, None if encoder_only else model.decoder)
    config = dataclasses.replace(config, layer=layer, embedding_scale=embedding_scale)
    save_checkpoint(out_path, Checkpoint(config, tensors), half=half)
    return out_path


class _Run:
    """One process of a run: the model in its engine, the position, and the loop."""

    def __init__(
        self,
        settings: Settings,
        corpus: CorpusLike,
        fabric: Fabric,
        model: MaskedAutoencoder,
        resumed: states.TrainingState | None,
    ) -> None:
        self.settings, self.corpus, self.fabric, self.model = settings, corpus, fabric, model
        self.total = settings.total_steps(corpus.hours)
        self.progress = states.Progress()
        optimizer = make_optimizer(model, settings, fabric.device)
        set_attention(model, fused=fabric.device.type != "cpu" or settings.precision == "fp32")
        if settings.compile:
            model.compile()
        self.engine, self.optimizer = fabric.setup(model, optimizer)
        # Also those that found none take part, or they would wait for each other for ever.
        found = _gather(fabric, (resumed.progress.step if resumed else None, settings.precision))
        if len(set(found)) > 1:
            raise ValueError(
                f"the processes begin differently (step and precision: {found}); run_dir "
                f"{settings.run_dir} must be the same folder for all, and precision=auto needs "
                "equal hardware"
            )
        if resumed is not None:
            self.optimizer.load_state_dict(resumed.optimizer)
            self.progress = resumed.progress
            if fabric.global_rank < len(resumed.rng):
                states.set_rng_state(resumed.rng[fabric.global_rank])
        self.stop_signal: int | None = None
        self.started = time.monotonic() - self.progress.seconds

    def train(self, dataset: StepDataset) -> Outcome:
        """Steps until the end of the run, or a signal."""
        s, progress = self.settings, self.progress
        first = progress.step
        pin = self.fabric.device.type == "cuda"
        data = batches(dataset, first, self.total, pin) if first < self.total else iter(())
        last_checkpoint = time.monotonic()
        stop = False
        watcher = Watcher(s, self.corpus, self.fabric, self.model, first, self.total)
        if first < self.total and self.fabric.global_rank == 0:
            _save_settings(s)
        with watcher, self._signals():
            while progress.step < self.total and not stop:
                with watcher.waiting():
                    parts = next(data)
                minutes = (time.monotonic() - last_checkpoint) / 60
                due = 0 < s.checkpoint_minutes < minutes
                loss, norm, due, stop = self._step(parts, due)
                watcher.step(progress, loss, norm, s.lr_at(progress.step - 1, self.total))
                self._check_diverged()
                due |= s.checkpoint_steps > 0 and progress.step % s.checkpoint_steps == 0
                if due or stop or progress.step == self.total:
                    self._checkpoint()
                    last_checkpoint = time.monotonic()
                    if not stop:
                        watcher.checkpoint(progress.step)
        # The signal may have reached another process.
        number = (self.stop_signal or int(signal.SIGTERM)) if stop else None
        return Outcome(progress.step, self.total, number)

    def _step(self, parts: list[Batch], due: bool) -> tuple[float, float, bool, bool]:
        """One optimiser step: loss over the global batch, gradient norm, and what was agreed on.

        Every process contributes its loss, whether it holds a checkpoint due and whether it got a
        signal; all continue with the same answers.
        """
        s, progress = self.settings, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = s.lr_at(progress.step, self.total)
        losses = [self._backward(part, i == len(parts) - 1) for i, part in enumerate(parts)]
        mine = [
            float(torch.stack(losses).mean()),
            float(due and self.fabric.global_rank == 0),  # the first process keeps the time
            float(self.stop_signal is not None),
        ]
        agreed = torch.tensor(mine, device=self.fabric.device)
        agreed = self.fabric.all_reduce(agreed, reduce_op="sum").cpu()
        loss = float(agreed[0]) / self.fabric.world_size
        # Gradients are already averaged over the processes, so all find the same norm.
        limit = s.clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            progress.bad_in_a_row = 0
        else:
            progress.skipped += 1
            progress.bad_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.seconds = time.monotonic() - self.started
        return loss, norm, bool(agreed[1] > 0), bool(agreed[2] > 0)

    def _backward(self, part: Batch, last: bool) -> Tensor:
        """Gradients of one part of the batch; exchanged between processes at the last part."""
        device = self.fabric.device
        spectrogram = part.spectrogram.to(device, non_blocking=True)
        order = part.order.to(device, non_blocking=True)
        with self.fabric.no_backward_sync(self.engine, enabled=not last):
            loss: Tensor = self.engine(spectrogram, split_order(order, self.settings.mask_ratio))
            self.fabric.backward(loss / self.settings.accumulation)
        return loss.detach()

    def _check_diverged(self) -> None:
        if self.progress.bad_in_a_row >= self.settings.max_bad_steps:
            kept = states.checkpoints(self.settings.run_dir)
            raise TrainingDiverged(
                f"loss or gradient was NaN/Inf in {self.progress.bad_in_a_row} steps in a row, up "
                f"to step {self.progress.step}; the newest checkpoint is "
                f"{kept[0] if kept else '(none yet)'}. Lower base_lr, set clip_norm, or check the "
                "corpus"
            )

    def _checkpoint(self) -> None:
        rng = _gather(self.fabric, states.rng_state())
        if self.fabric.global_rank == 0:
            state = states.TrainingState(
                states.on_cpu(self.model.state_dict()),
                states.on_cpu(self.optimizer.state_dict()),
                self.progress,
                rng,
                self.settings,
                (self.corpus.mean, self.corpus.std),
                self.corpus.fingerprint,
            )
            states.save(self.settings.run_dir, state, self.settings.keep_last)
        self.fabric.barrier()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run after the current step, with a checkpoint."""
        began = 0.0

        def remember(number: int, frame: FrameType | None) -> None:
            nonlocal began
            if self.stop_signal is None:
                self.stop_signal, began = number, time.monotonic()
            # Schedulers signal the group, and torchrun once more: only a user's Ctrl-C counts.
            elif number == signal.SIGINT and time.monotonic() - began > SECOND_CTRL_C_SECONDS:
                raise KeyboardInterrupt

        old: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not in the main thread: nothing to catch
            for number in (int(signal.SIGTERM), int(signal.SIGINT)):
                old[number] = signal.signal(number, remember)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _open_corpus(settings: Settings) -> CorpusLike:
    from ..corpus.corpus import Corpus

    return Corpus.open(settings.corpus)


def _save_settings(settings: Settings) -> None:
    with replacing(Path(settings.run_dir) / "settings.yaml") as temporary:
        temporary.write_text(settings.to_yaml(), encoding="utf-8")


def _gather(fabric: Fabric, value: Any) -> list[Any]:
    """The value of every process."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values
