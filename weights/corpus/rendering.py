"""What all rendered kinds share: seeded clips, worker processes, and how a clip is written.

A kind is a module with

    setup(cache: Path) -> state       downloads and models, once per worker process
    clip(rng: Random, state) -> (waveform, rate)   one clip, mono; None if nothing came of it

Clip number n of a kind is drawn from a generator seeded by the kind and n, so that it is the same
in every build, whatever the number of workers and wherever a build was stopped.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import soxr

from weights.corpus.packages import BuildError, duration

log = logging.getLogger(__name__)
SEED = 20261126
SAMPLE_RATE = 16_000
BATCH = 32  # clips between two looks at the sum of hours
Waveform = np.ndarray  # (n,) float

_kind: dict[str, Any] = {}  # of a worker process: module, state and tree


def render_all(module: str, tree: Path, cache: Path, hours: float, workers: int) -> None:
    """Render clips of a kind into `tree` until they last `hours`; clips already there count.

    Raises:
        BuildError: a whole batch of clips came to nothing, or `setup` says what is missing.
    """
    importlib.import_module(module).setup(cache)  # once here: workers find the downloads done
    total, first, started = 0.0, 0, time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start, (module, cache, tree)) as pool:
        while total < 3600 * hours:
            seconds = sum(pool.imap_unordered(_make, range(first, first + BATCH)))
            if seconds == 0:
                raise BuildError(f"{module} gives no sound")
            total, first = total + seconds, first + BATCH
            if first % (8 * BATCH) == 0:
                log.info("%s: %.2f h in %.0f s", module, total / 3600, time.monotonic() - started)


def _start(module: str, cache: Path, tree: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    loaded = importlib.import_module(module)
    _kind.update(module=loaded, state=loaded.setup(cache), tree=tree)


def _make(index: int) -> float:
    """Render one clip unless it is there; return its length in seconds."""
    path = _kind["tree"] / f"{index // 1000:03d}" / f"{index:06d}.flac"
    if path.is_file():
        return duration(path)
    name = _kind["module"].__name__.rpartition(".")[2]
    try:
        made = _kind["module"].clip(Random(f"{SEED}/{name}/{index}"), _kind["state"])
    except (BuildError, ValueError, soundfile.LibsndfileError) as error:
        # ValueError: a damaged recording. LibsndfileError: a program wrote no sound.
        log.warning("clip %d of %s is left out: %s", index, name, error)
        return 0.0
    return 0.0 if made is None else write_clip(path, *made)


def write_clip(path: Path, waveform: Waveform, rate: float) -> float:
    """Write mono 16 kHz FLAC whose peak is 0.7, whole or not at all; return the seconds.

    Silence is not written and lasts 0 seconds.
    """
    samples = np.asarray(waveform, np.float32)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    peak = float(np.abs(samples).max(initial=0.0))
    # Below -60 dBFS there is only the rounding noise of a player whose instrument is silent.
    if not 1e-3 < peak < 1e9 or len(samples) < SAMPLE_RATE // 10:
        return 0.0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    soundfile.write(part, samples * (0.7 / peak), SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    part.rename(path)
    return len(samples) / SAMPLE_RATE
