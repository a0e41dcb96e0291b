"""`embed_files`: embed recordings and yield a record for each clip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..api import unwrap
from ..files import printable
from ..model import HearModel
from .cutting import Plan, make_plan
from .pieces import Result, embed_recordings
from .settings import DTYPES
from .sources import Failure, Recording, find_recordings, iter_recordings


class Embedding(NamedTuple):
    """A clip and its embedding.

    Attributes:
        path: path of the file as found, or a label for audio in memory.
        start, end: start and end of the clip in the file, in seconds.
        embedding: (d,) scene embedding, or (t, d) embeddings with timestamps.
        timestamps_ms: (t,) float64 centres in the file, in ms; None without timestamps.
        row: number of the recording in the input, from 0.
        columns: other columns of a list.
    """

    path: str
    start: float
    end: float
    embedding: NDArray[np.floating]
    timestamps_ms: NDArray[np.float64] | None = None
    row: int = 0
    columns: dict[str, Any] = {}  # noqa: RUF012  (never changed)


def embed_files(
    sources: Any,
    model: HearModel,
    *,
    timestamps: bool = False,
    segment: float | None = None,
    overlap: float = 0.0,
    dtype: str = "float32",
    channel: str | int = "mix",
    workers: int | None = None,
    failures: list[Failure] | None = None,
) -> Iterator[Embedding]:
    """Embed recordings of any format and length; an iterator over the results.

    Threads decode files while the encoder works, and many files are encoded together. Memory does
    not grow with the number or length of files, but all timestamp embeddings of a clip are in
    memory at once.

    Args:
        sources: one or an iterable of files, folders, globs, URLs, lists (`.csv`, `.tsv` or
            `.parquet` with a column `path` and optional `start`, `end` or `duration` in seconds),
            or audio in memory: (array, rate), {"array": ..., "sampling_rate": ...} or an
            AudioDecoder of torchcodec, as Hugging Face datasets give them. A generator is read
            while the results are used.
        model: from `load_model`, on any device; its options apply.
        timestamps: True for embeddings over time, False for one embedding per clip.
        segment: length in seconds of windows; each window is a clip, and the last may be shorter.
        overlap: seconds that neighbouring windows share.
        dtype: "float32" or "float16".
        channel: "mix" for the mean of the channels, "left", "right", or a number from 0.
        workers: number of threads that decode; by default one per processor, at most 16.
        failures: a list that gets the files that cannot be read, and wrong items of a generator.
            Windows before the damage may have been yielded already. By default an error is
            raised.

    Yields:
        One record per clip, in the order of the input.

    Raises:
        FileNotFoundError, ValueError: there is nothing to embed, an option is wrong, or (without
            `failures`) a file cannot be read.

    Examples:
        >>> import hear_msm_mae
        >>> model = hear_msm_mae.load_model()
        >>> windows = embed_files("examples/*reader*", model, segment=3)
        >>> [record.start for record in windows]
        [0.0, 3.0, 0.0, 3.0, 6.0]
    """
    model = unwrap(model)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}")
    if channel == "each":
        raise ValueError(
            "channel 'each' works only with `hear-msm-mae embed`; pass one channel, or 'mix'"
        )
    find = iter_recordings if isinstance(sources, Iterator) else find_recordings
    recordings = find(sources, failures, channel=channel)
    plan = make_plan(model, timestamps, segment, overlap)
    return _records(embed_recordings(recordings, plan, dtype, workers), plan, failures)


def _records(
    results: Iterator[Result | tuple[Recording, Failure]],
    plan: Plan,
    failures: list[Failure] | None,
) -> Iterator[Embedding]:
    waiting: list[NDArray[np.floating]] = []  # rows of an incomplete clip
    for result in results:
        if not isinstance(result, Result):
            waiting = []
            failure = result[1]
            if failures is None:
                raise ValueError(f"{printable(failure.path)}: {failure.reason}")
            failures.append(failure)
            continue
        recording, place = result.recording, result.place
        waiting.append(result.rows)
        if place.samples is None:
            continue
        rows, times = np.concatenate(waiting), None
        waiting = []
        start, end = (
            x / plan.model.sample_rate for x in (place.start, place.start + place.samples)
        )
        if plan.timeline.hop_ms is None:
            rows = rows[0]
        else:
            times = 1000 * start + plan.timeline.timestamps_ms(place.samples)
        columns = dict(recording.columns)
        yield Embedding(recording.path, start, end, rows, times, recording.row, columns)
