"""Units of many recordings -> batches -> embeddings, while the next ones are being read."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import MS_PER_FRAME, SAMPLE_RATE
from ..files import available_cpus
from ..model import MAX_TOKENS, HearModel
from .cut import Group, Plan
from .inputs import Failure, Task
from .readers import Readers

logger = logging.getLogger(__name__)

CPU_BATCH_SECONDS = 240.0  # several micro-batches, so that units of each length find mates
CUDA_BATCH_SECONDS = 600.0
# Tokens encoded at once on a GPU; halved for good when its memory does not hold them.
CUDA_TOKENS = 2**15
MAX_READERS = 8


class Resume(NamedTuple):
    """Where an interrupted task goes on: clip, group, and the scene's sums so far."""

    clip: int
    group: int
    total: NDArray[np.float64] | None
    weight: float


@dataclasses.dataclass
class Chunk:
    """What a batch adds to a clip.

    Attributes:
        task: index of the task.
        clip: number of the clip (window) in the task.
        first: whether the task begins here.
        last: whether the task ends here.
        start: where the clip begins, in seconds of the file.
        end: where it ends, None while that is unknown: the clip goes on in the next batch.
        rows: (r, d) new rows of the clip; a scene embedding comes as one row with the clip's end.
    """

    task: int
    clip: int
    first: bool
    last: bool
    start: float
    end: float | None
    rows: NDArray[np.floating]


@dataclasses.dataclass
class Batch:
    """Results of one batch, in the order of the tasks.

    Attributes:
        resume: where the last task of `chunks` goes on; None when it is complete.
        positions: (index of the task, how far it was read in seconds) of each task met.
    """

    chunks: list[Chunk]
    failures: list[tuple[int, Failure]]
    resume: Resume | None
    positions: dict[int, float]


def embed_batches(
    tasks: Sequence[Task],
    model: HearModel,
    plan: Plan,
    dtype: str = "float32",
    batch_seconds: float | None = None,
    workers: int | None = None,
    resume: Resume | None = None,
) -> Iterator[Batch]:
    """Embed tasks in bounded memory; reading and encoding overlap.

    Args:
        dtype: of the rows, "float32" or "float16".
        batch_seconds: encoder input in a batch, in seconds of audio; chosen by the device when
            None. Results do not depend on it.
        workers: reader threads; by default as many as there are processors, at most 8.
        resume: where the first task goes on.
    """
    if batch_seconds is None:
        batch_seconds = CPU_BATCH_SECONDS if model.device.type == "cpu" else CUDA_BATCH_SECONDS
    if not 0 < batch_seconds < float("inf"):
        raise ValueError(f"batch_seconds must be positive, got {batch_seconds}")
    if workers is None:
        workers = min(MAX_READERS, available_cpus())
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    resume = resume or Resume(0, 0, None, 0.0)
    encoder = UnitEncoder(model, plan)
    assembler = _Assembler(plan, np.dtype(dtype), resume)
    seconds_per_column = model.config.patch_frames * MS_PER_FRAME / 1000
    groups: list[tuple[int, Group]] = []
    failures: list[tuple[int, Failure]] = []
    seconds = 0.0
    readers = iter(Readers(tasks, plan, workers, resume.clip, resume.group))
    try:
        for index, item in readers:
            if isinstance(item, Failure):
                # What came of the task before is of no use.
                groups = [entry for entry in groups if entry[0] != index]
                failures.append((index, item))
                continue
            groups.append((index, item))
            seconds += sum(piece.unit.columns for piece in item.pieces) * seconds_per_column
            if seconds >= batch_seconds:
                yield assembler.batch(groups, encoder([group for _, group in groups]), failures)
                groups, failures, seconds = [], [], 0.0
        if groups or failures:
            yield assembler.batch(groups, encoder([group for _, group in groups]), failures)
    finally:
        readers.close()  # type: ignore[attr-defined]


class UnitEncoder:
    """Encode the units of many clips, those of equal length together.

    Scene embeddings come as the weighted sum over the columns of each unit, (d,) float32;
    timestamps as the columns, (t, d) float32.
    """

    def __init__(self, model: HearModel, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.tokens = MAX_TOKENS if model.device.type == "cpu" else CUDA_TOKENS

    @torch.inference_mode()
    def __call__(self, groups: Sequence[Group]) -> list[list[NDArray[np.float32]]]:
        """For each group the results of its units."""
        units = [
            (g, u) for g, group in enumerate(groups) for u in range(len(group.pieces))
        ]  # by length, in a stable order
        by_length: dict[int, list[tuple[int, int]]] = {}
        for g, u in units:
            by_length.setdefault(groups[g].units[u].shape[1], []).append((g, u))
        results: list[list[NDArray[np.float32]]] = [
            [np.empty(0, np.float32)] * len(group.pieces) for group in groups
        ]
        for places in by_length.values():
            done = 0
            while done < len(places):
                part = places[done : done + self._clips_at_once(groups, places[0])]
                try:
                    outputs = self._encode([(groups[g], u) for g, u in part])
                except torch.OutOfMemoryError:
                    if len(part) == 1:
                        raise
                    torch.cuda.empty_cache()
                    tokens = self.model.config.rows * self._columns(groups, part[0])
                    self.tokens = max(1, len(part) // 2) * tokens
                    logger.warning("out of GPU memory: encoding %d tokens at once", self.tokens)
                    continue
                for (g, u), output in zip(part, outputs, strict=True):
                    results[g][u] = output
                done += len(part)
        return results

    def _clips_at_once(self, groups: Sequence[Group], place: tuple[int, int]) -> int:
        return max(1, self.tokens // (self.model.config.rows * self._columns(groups, place)))

    def _columns(self, groups: Sequence[Group], place: tuple[int, int]) -> int:
        if self.plan.options.mode == "paper":  # padded to whole units
            return self.model.config.columns
        return groups[place[0]].pieces[place[1]].unit.columns

    def _encode(self, units: list[tuple[Group, int]]) -> list[NDArray[np.float32]]:
        """Units of one length."""
        spectrograms = torch.stack([group.units[u] for group, u in units])  # (b, f, t)
        embeddings = self.model.embed_units(spectrograms.to(self.model.device))  # (b, t, d)
        if self.plan.timestamps:
            return list(embeddings.cpu().numpy())
        weights = torch.from_numpy(np.stack([group.weights[u] for group, u in units]))  # (b, t)
        sums: Tensor = torch.einsum("bt,btd->bd", weights.to(embeddings.device), embeddings)
        return list(sums.cpu().numpy())


class _Assembler:
    """Put the results of units together to clips; knows the clip that is not complete."""

    def __init__(self, plan: Plan, dtype: np.dtype[np.floating], resume: Resume) -> None:
        self._plan, self._dtype = plan, dtype
        self._total, self._weight = resume.total, resume.weight

    def batch(
        self,
        groups: list[tuple[int, Group]],
        results: list[list[NDArray[np.float32]]],
        failures: list[tuple[int, Failure]],
    ) -> Batch:
        chunks: list[Chunk] = []
        positions: dict[int, float] = {}
        for (task, group), result in zip(groups, results, strict=True):
            rows = self._timestamps(group, result) if self._plan.timestamps else None
            if rows is None:
                rows = self._scene(group, result)
            positions[task] = group.position
            end = None
            if group.samples is not None:
                end = (group.start + group.samples) / SAMPLE_RATE
            open_ = chunks[-1] if chunks and chunks[-1].end is None else None
            if open_ is not None and (open_.task, open_.clip) == (task, group.clip):
                open_.rows = np.concatenate([open_.rows, rows])
                open_.end, open_.last = end, group.last
            else:
                first = group.clip == group.number == 0
                start = group.start / SAMPLE_RATE
                chunks.append(Chunk(task, group.clip, first, group.last, start, end, rows))
        failed = {task for task, _ in failures}
        resume = None
        if groups and not groups[-1][1].last and groups[-1][0] not in failed:
            group = groups[-1][1]
            closed = group.samples is not None
            resume = Resume(
                group.clip + closed, 0 if closed else group.number + 1, self._total, self._weight
            )
        return Batch(chunks, list(failures), resume, positions)

    def _timestamps(self, group: Group, result: list[NDArray[np.float32]]) -> NDArray[np.floating]:
        """Rows of the group in order of time."""
        order = np.argsort(np.concatenate(group.rows), kind="stable")
        return np.concatenate(result).astype(self._dtype)[order]

    def _scene(self, group: Group, result: list[NDArray[np.float32]]) -> NDArray[np.floating]:
        """The clip's row when it is complete, else nothing."""
        if group.number == 0:
            self._total, self._weight = None, 0.0
        for part, weights in zip(result, group.weights, strict=True):
            total = part.astype(np.float64)
            self._total = total if self._total is None else self._total + total
            self._weight += float(weights.sum(dtype=np.float64))
        assert self._total is not None
        if group.samples is None:
            return np.zeros((0, len(self._total)), self._dtype)
        row = (self._total / self._weight).astype(self._dtype)
        self._total, self._weight = None, 0.0
        return row[None]
