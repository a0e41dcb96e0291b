"""Features for a probe: embeddings and, for comparison, statistics of the log-mel spectrogram.

Both are outputs of `embed` in the folder of the probe, so a second run reads no audio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..embed.formats.parquet import Parquet
from ..embed.run import embed_to
from ..embed.settings import Settings
from ..embed.sources import Failure, Recording
from ..embed.table import Clip
from ..files import printable
from ..model import HearModel
from ..pooling import Sums
from ..timeline import Piece
from .labels import Labelled

EMBEDDINGS, LOG_MEL = "embeddings.parquet", "log-mel.parquet"


class Features(NamedTuple):
    """Features of the n recordings that could be read.

    Attributes:
        embeddings: (n, d) scene embeddings.
        log_mel: (n, 2 f) mean and standard deviation over time of each mel band.
        starts, ends: (n,) start and end in the file in seconds.
        failures: the other recordings.
    """

    embeddings: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    failures: list[Failure]


def features(
    labelled: Labelled,
    model: HearModel,
    settings: Settings,
    out: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> tuple[Labelled, Features]:
    """A scene embedding and log-mel statistics of each recording that can be read.

    Returns:
        These recordings, and their features.

    Raises:
        ValueError: the folder holds embeddings with other settings, no recording can be read, or
            all that can be read have the same label.
    """
    how: dict[str, Any] = {"workers": workers, "overwrite": overwrite}
    summary = embed_to(out / EMBEDDINGS, labelled.recordings, model, settings, **how)
    failed = {(x.path, x.start, x.end) for x in summary.failures}
    recordings = labelled.recordings
    kept = [i for i, x in enumerate(recordings) if (x.path, x.start, x.end) not in failed]
    if not kept:
        first = summary.failures[0]
        raise ValueError(
            f"none of the {len(recordings)} recordings could be read; the first one: {first.path}: "
            f"{first.reason}"
        )
    labelled = labelled.select(kept)
    if len(labelled.names) < 2 - labelled.several:
        raise ValueError(
            f"only recordings of {labelled.names} could be read, a classifier needs two labels; "
            f"see {printable(str(summary.failures_file))}"
        )
    other = dataclasses.replace(settings, scene_pooling="mean+std of the log-mel")
    statistics = cast(HearModel, LogMelStatistics(model))
    again = embed_to(out / LOG_MEL, labelled.recordings, statistics, other, **how)
    for path, _, _, reason in again.failures:
        raise ValueError(f"{path} could be read once, but not again: {reason}; repeat the command")
    embeddings, clips = _rows(out / EMBEDDINGS, labelled.recordings)
    log_mel, _ = _rows(out / LOG_MEL, labelled.recordings)
    starts, ends = (np.array([getattr(x, name) for x in clips]) for name in ("start", "end"))
    return labelled, Features(embeddings, log_mel, starts, ends, summary.failures)


def _rows(path: Path, recordings: Sequence[Recording]) -> tuple[NDArray[np.float32], list[Clip]]:
    """The row and the clip of each recording, which may not be all of the output."""
    table = Parquet().read(path)
    places = {tuple(done.key): i for i, done in enumerate(table.recordings)}
    index = [places[x.key] for x in recordings]
    rows = np.concatenate([block.rows for _, block in table.indexed()])
    return rows[index].astype(np.float32), [table.clips[i] for i in index]


class Derived:
    """A model for `embed_to` whose embeddings are made from those of a `HearModel`, or beside them.

    Args:
        model: the model, which has all other attributes.
        size: number of values of an embedding.
    """

    def __init__(self, model: HearModel, size: int) -> None:
        self.model = model
        self.scene_embedding_size = self.timestamp_embedding_size = size

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class LogMelStatistics(Derived):
    """Mean and standard deviation over time of each mel band, not normalised: (2 f,)."""

    def __init__(self, model: HearModel) -> None:
        super().__init__(model, 2 * model.config.n_mels)

    def encode(self, pieces: Iterable[Piece]) -> Iterator[Sums]:
        """The sums over the frames of each piece; in scenes no two pieces share a frame."""
        for piece in pieces:
            frames = log_mel_of(self.model, piece).double()  # (f, t)
            yield Sums(torch.stack([frames.sum(1), frames.square().sum(1)]), frames.shape[1])


def log_mel_of(model: HearModel, piece: Piece) -> Tensor:
    """Log-mel frames of a piece of a scene, not normalised: (f, t) on the CPU."""
    first, last = piece.layout.first, piece.layout.last
    return model.frontend.log_mel_range(piece.waveform[None], first, last)[0].cpu()
