"""Clips of unequal lengths in one call: each gets the embeddings that it has alone."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .model import HearModel
from .pooling import Sums
from .timeline import Timeline


def scenes(model: HearModel, clips: Sequence[Tensor]) -> Tensor:
    """One embedding per clip, with gradients unless the caller switches them off.

    Args:
        model: from `hear_msm_mae.load_model`, with stored statistics.
        clips: (n,) float waveforms at `model.sample_rate`, each of any length.

    Returns:
        (b, d) float32, d = model.scene_embedding_size.

    Raises:
        ValueError: no clips, a clip without samples, or the model takes its statistics from the
            batch.

    >>> from hear_msm_mae import load_model
    >>> model = load_model()
    >>> scenes(model, [torch.zeros(16000), torch.zeros(400)]).shape[0]
    2
    """
    timeline = model.timeline(timestamps=False)
    embeddings = []
    for parts in _encoded(model, clips, timeline):
        embeddings.append(model.pool(functools.reduce(Sums.__add__, parts)))
    return torch.stack(embeddings)


def frames(model: HearModel, clips: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Frame embeddings of each clip, and the times that they are centred at.

    Args:
        model, clips: as for `scenes`.

    Returns:
        For each clip (t, d) float32 embeddings, d = model.timestamp_embedding_size, and (t,)
        float32 timestamps in ms, on the model's device.

    Raises:
        ValueError: as `scenes`.
    """
    timeline = model.timeline(timestamps=True)
    embeddings = [torch.cat(list(parts)) for parts in _encoded(model, clips, timeline)]
    timestamps = [torch.from_numpy(timeline.timestamps_ms(len(clip))).float() for clip in clips]
    return embeddings, [times.to(model.device) for times in timestamps]


def _encoded(
    model: HearModel, clips: Sequence[Tensor], timeline: Timeline
) -> Iterator[Iterator[Any]]:
    """What the engine gives for the pieces of each clip; to be read in order."""
    if model.options.normalization == "batch":
        raise ValueError(
            "the model takes the statistics of its input from the batch, which a clip in a batch "
            "of unequal lengths has no part in; load it with normalization='stored'"
        )
    if not clips or not all(len(clip) for clip in clips):
        raise ValueError("expected at least one clip, and at least one sample in each")
    results = model.encode(piece for clip in clips for piece in timeline.cut([clip]))
    for clip in clips:
        yield itertools.islice(results, timeline.count_pieces(len(clip)))
