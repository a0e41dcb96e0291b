"""`embed_files`: recordings in, typed records out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..files import printable
from ..model import HearModel
from .cut import Plan, make_plan
from .inputs import Failure, Task, find_tasks
from .pipeline import Batch, embed_batches

DTYPES = ("float32", "float16")


class Embedding(NamedTuple):
    """A clip and its embedding.

    Attributes:
        path: the file, as it was found.
        start, end: of the clip in the file, in seconds.
        embedding: (d,), or (t, d) with timestamps.
        timestamps_ms: (t,) float64 centres in the file; None without timestamps.
    """

    path: str
    start: float
    end: float
    embedding: NDArray[np.floating]
    timestamps_ms: NDArray[np.float64] | None = None


def embed_files(
    paths: str | Path | Iterable[str | Path | Task],
    model: HearModel,
    *,
    timestamps: bool = False,
    segment: float | None = None,
    overlap: float = 0.0,
    dtype: str = "float32",
    batch_seconds: float | None = None,
    workers: int | None = None,
    failures: list[Failure] | None = None,
) -> Iterator[Embedding]:
    """Embed audio files of any format and length, as one goes through the results.

    Files are decoded in threads while the encoder works; the units of many files are encoded
    together. Memory does not grow with their number or length, except that the timestamp
    embeddings of a whole clip are held.

    Args:
        paths: files, folders, globs, URLs, `.csv` or `.parquet` lists with a column `path` and
            optional `start` and `end` in seconds, or `hear_msm_mae.embed.inputs.Task`s.
        model: from `load_model`, on any device; its options apply.
        timestamps: embeddings over time, not one per clip.
        segment: one clip per window of so many seconds; the last one is what is left.
        overlap: seconds that neighbouring windows share.
        dtype: "float32" or "float16".
        batch_seconds: audio that is encoded together; chosen by the device by default.
        workers: reader threads.
        failures: gets the files that cannot be read; windows in front of the damage may have been
            yielded before. Without it they raise.

    Yields:
        One record per clip, in the order of the paths.

    Raises:
        FileNotFoundError, ValueError: nothing to embed, an option that makes no sense, or
            (without `failures`) a file that cannot be read.

    >>> import hear_msm_mae
    >>> model = hear_msm_mae.load_model()
    >>> [record.embedding.shape for record in embed_files("examples/*reader*", model, segment=3)]
    [(1920,), (1920,), (1920,), (1920,), (1920,)]
    """
    if not isinstance(model, HearModel):
        raise TypeError(
            "model must come from hear_msm_mae.load_model, "
            f"got {type(model).__module__}.{type(model).__qualname__}"
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}")
    sources = [paths] if isinstance(paths, (str, Path)) else paths
    tasks = find_tasks(sources, failures)
    plan = make_plan(model, timestamps, segment, overlap)
    batches = embed_batches(tasks, model, plan, dtype, batch_seconds, workers)
    return _records(batches, tasks, plan, failures)


def _records(
    batches: Iterator[Batch], tasks: list[Task], plan: Plan, failures: list[Failure] | None
) -> Iterator[Embedding]:
    waiting: list[NDArray[np.floating]] = []  # rows of a clip that is not complete
    for batch in batches:
        for chunk in batch.chunks:
            if chunk.first:
                waiting = []  # of a file that failed
            waiting.append(chunk.rows)
            if chunk.end is None:
                continue
            rows, times = np.concatenate(waiting), None
            waiting = []
            if plan.timestamps:
                times = times_in_file(plan, chunk.start, chunk.end)
            else:
                rows = rows[0]
            yield Embedding(tasks[chunk.task].path, chunk.start, chunk.end, rows, times)
        for _, failure in batch.failures:
            if failures is None:
                raise ValueError(f"{printable(failure.path)}: {failure.reason}")
            failures.append(failure)


def times_in_file(plan: Plan, start: float, end: float) -> NDArray[np.float64]:
    """Timestamps of a clip in ms, from the beginning of the file."""
    return 1000.0 * start + plan.times_ms(round((end - start) * SAMPLE_RATE))
