"""`embed_files`: recordings in, typed records out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..api import unwrap
from ..files import printable
from ..model import HearModel
from .pieces import Plan, Result, embed_recordings, make_plan
from .settings import DTYPES
from .sources import Failure, Recording, find_recordings, iter_recordings


class Embedding(NamedTuple):
    """A clip and its embedding.

    Attributes:
        path: the file, as it was found; a label for audio in memory.
        start, end: of the clip in the file, in seconds.
        embedding: (d,), or (t, d) with timestamps.
        timestamps_ms: (t,) float64 centres in the file; None without timestamps.
        row: place of the recording in the input, from 0.
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
    """Embed recordings of any format and length, as one goes through the results.

    Files are decoded in threads while the encoder works; many files are encoded together. Memory
    does not grow with their number or length, except that the timestamp embeddings of a whole clip
    are held.

    Args:
        sources: one or an iterable of files, folders, globs, URLs, lists (`.csv`, `.tsv` or
            `.parquet` with a column `path` and optional `start`, `end` or `duration` in seconds),
            or audio in memory: (array, rate), {"array": ..., "sampling_rate": ...} or an
            AudioDecoder of torchcodec, as Hugging Face datasets give them. A generator is consumed
            as one goes through the results.
        model: from `load_model`, on any device; its options apply.
        timestamps: embeddings over time, not one per clip.
        segment: one clip per window of so many seconds; the last one is what is left.
        overlap: seconds that neighbouring windows share.
        dtype: "float32" or "float16".
        channel: "mix" for the mean of the channels, "left", "right", or a number from 0 on.
        workers: threads that read.
        failures: gets what cannot be read; windows in front of the damage may have been yielded
            before. Without it they raise.

    Yields:
        One record per clip, in the order of the input.

    Raises:
        FileNotFoundError, ValueError: nothing to embed, an option that makes no sense, or
            (without `failures`) a file that cannot be read.

    >>> import hear_msm_mae
    >>> model = hear_msm_mae.load_model()
    >>> [record.embedding.shape for record in embed_files("examples/*reader*", model, segment=3)]
    [(3840,), (3840,), (3840,), (3840,), (3840,)]
    """
    model = unwrap(model)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {list(DTYPES)}, got {dtype!r}")
    if channel == "each":
        raise ValueError("channel 'each' needs the command; name one channel, or 'mix'")
    lazy = isinstance(sources, Iterator)
    find = iter_recordings if lazy else find_recordings
    recordings = find(sources, failures, channel=channel)
    plan = make_plan(model, timestamps, segment, overlap)
    return _records(embed_recordings(recordings, plan, dtype, workers), plan, failures)


def _records(
    results: Iterator[Result | tuple[Recording, Failure]],
    plan: Plan,
    failures: list[Failure] | None,
) -> Iterator[Embedding]:
    waiting: list[NDArray[np.floating]] = []  # rows of a clip that is not complete
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
        rate = plan.sample_rate
        start, end = place.start / rate, (place.start + place.samples) / rate
        if plan.timeline.hop_ms is None:
            rows = rows[0]
        else:
            times = 1000 * start + plan.timeline.timestamps_ms(place.samples)
        columns = dict(recording.columns)
        yield Embedding(recording.path, start, end, rows, times, recording.row, columns)
