"""Features for a probe: embeddings and, for comparison, statistics of the log-mel spectrogram.

Both are stored in the folder of the probe, so a second run reads no audio.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..embed.cutting import Plan, Resume, cut, make_plan
from ..embed.formats.parquet import Parquet
from ..embed.run import Summary, embed_to
from ..embed.settings import Settings
from ..embed.sources import Recording
from ..files import available_cpus, replacing
from ..model import HearModel

EMBEDDINGS = "embeddings.parquet"
LOG_MEL = "log-mel.npz"


class Features(NamedTuple):
    """Features of the k recordings that could be read.

    Attributes:
        kept: (k,) indices of these recordings in the input.
        embeddings: (k, d) scene embeddings.
        log_mel: (k, 2 f) mean and standard deviation over time of each mel band.
        seconds: (k,) length of the recordings; ends: (k,) end in the file; both in seconds.
    """

    kept: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    seconds: NDArray[np.float64]
    ends: NDArray[np.float64]


def features(
    recordings: Sequence[Recording],
    model: HearModel,
    settings: Settings,
    out: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> tuple[Features, Summary]:
    """Compute a scene embedding and log-mel statistics of each recording that can be read.

    Raises:
        ValueError: the folder holds embeddings with other settings, or no recording can be read.
    """
    path = out / EMBEDDINGS
    summary = embed_to(path, recordings, model, settings, workers=workers, overwrite=overwrite)
    failed = {(x.path, x.start, x.end) for x in summary.failures}
    readable = [i for i, x in enumerate(recordings) if (x.path, x.start, x.end) not in failed]
    if not readable:
        first = summary.failures[0]
        raise ValueError(
            f"none of the {len(recordings)} recordings could be read; the first one: {first.path}: "
            f"{first.reason}"
        )
    table = Parquet().read(path)
    places = {tuple(done.key): i for i, done in enumerate(table.recordings)}
    rows = np.concatenate([block.rows for _, block in table.indexed()])
    index = [places[recordings[i].key] for i in readable]  # a clip and a row for each recording
    clips = [table.clips[i] for i in index]
    stamps = [table.recordings[i].stamp for i in index]
    kept = [recordings[i] for i in readable]
    found = Features(
        np.array(readable),
        rows[index].astype(np.float32),
        _log_mel(kept, stamps, model, out / LOG_MEL, workers),
        np.array([clip.end - clip.start for clip in clips]),
        np.array([clip.end for clip in clips]),
    )
    return found, summary


def _log_mel(
    recordings: Sequence[Recording],
    stamps: Sequence[Any],
    model: HearModel,
    path: Path,
    workers: int | None,
) -> NDArray[np.float32]:
    """(n, 2 f) statistics; those in the file are not computed again."""
    names = [json.dumps([x.key, stamp]) for x, stamp in zip(recordings, stamps, strict=True)]
    known = _known(path, 2 * model.config.n_mels)
    plan = make_plan(model, timestamps=False)
    todo = [i for i, name in enumerate(names) if name not in known]
    if todo:
        with ThreadPoolExecutor(workers or min(16, available_cpus())) as pool:
            rows = pool.map(lambda i: _statistics(recordings[i], plan), todo)
            known |= {names[i]: row for i, row in zip(todo, rows, strict=True)}
        text = np.frombuffer(json.dumps(list(known)).encode(), np.uint8)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=text, rows=np.stack(list(known.values())))
    return np.stack([known[name] for name in names])


def _known(path: Path, width: int) -> dict[str, NDArray[np.float32]]:
    if not os.path.exists(path):
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            names, rows = json.loads(file["about"].tobytes()), file["rows"]
        if rows.shape != (len(names), width):
            return {}
        return dict(zip(names, rows, strict=True))
    except (OSError, ValueError, LookupError, zipfile.BadZipFile):
        return {}  # a damaged file is written again


@torch.inference_mode()
def log_mel_of(recording: Recording, plan: Plan) -> Iterator[Tensor]:
    """The log-mel spectrogram of a recording, not normalised, in consecutive parts (f, t)."""
    for _, piece in cut(recording, plan, Resume(0, 0)):  # scenes: no two pieces share a frame
        layout, frontend = piece.layout, plan.model.frontend
        yield frontend.log_mel_range(piece.waveform[None], layout.first, layout.last)[0]


def _statistics(recording: Recording, plan: Plan) -> NDArray[np.float32]:
    """Mean and standard deviation over time of each mel band: (2 f,)."""
    sums, squares, count = 0.0, 0.0, 0
    for log_mel in log_mel_of(recording, plan):
        frames = log_mel.double().cpu().numpy()  # (f, t)
        sums, squares = sums + frames.sum(1), squares + np.square(frames).sum(1)
        count += frames.shape[1]
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return np.concatenate([mean, std]).astype(np.float32)
