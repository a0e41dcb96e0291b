"""Pools of labelled clips: equally long 16 kHz waveforms with what is known about each of them.

A pool is built once from the evaluation sources and kept in the cache; tasks choose clips,
labels and groups from it, so that several tasks share the embeddings of one pool.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hear_msm_mae.config import SAMPLE_RATE
from hear_msm_mae.files import replacing
from weights.corpus.packages import BuildError

Facts = Mapping[str, str]
Waveform = NDArray[np.float32]  # (n,)
Clip = tuple[Waveform, Facts]

TRIM_BELOW = 35.0  # dB under the loudest frame of a clip
TRIM_KEEP = 0.05  # s before the first louder frame


@dataclasses.dataclass(frozen=True)
class Pool:
    """Clips of equal length.

    Shape:
        - waveforms: (n, samples) float32 at 16 kHz
        - facts: n mappings, e.g. {"pack": "British", "phrase": "Hello"}
    """

    name: str
    waveforms: NDArray[np.float32]
    facts: list[Facts]

    def clips(self) -> Iterator[Clip]:
        """Each waveform with its facts."""
        return zip(self.waveforms, self.facts, strict=True)

    @property
    def digest(self) -> str:
        """Fingerprint of the audio and its facts."""
        digest = hashlib.sha256(np.ascontiguousarray(self.waveforms).tobytes())
        digest.update(json.dumps(self.facts, sort_keys=True).encode())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to build a pool; raise `version` when the same name has to give other clips."""

    name: str
    seconds: float
    build: Callable[[Path], Iterable[Clip]]
    version: int = 1

    def pool(self, cache: Path) -> Pool:
        """Read the pool from the cache folder, or build it there.

        Raises:
            BuildError: a source cannot be had.
        """
        path = cache.expanduser() / "pools" / f"{self.name}-v{self.version}.npz"
        if not path.is_file():
            clips = list(self.build(cache.expanduser()))
            if not clips:
                raise BuildError(f"the sources hold no clip for {self.name}")
            size = round(self.seconds * SAMPLE_RATE)
            waveforms = np.stack([fit_length(waveform, size) for waveform, _ in clips])
            # 16 bits are what the sources have; the file is half as large.
            integers = np.round(waveforms.clip(-1, 1) * 32767).astype(np.int16)
            facts = json.dumps([facts for _, facts in clips])
            with replacing(path) as temporary, temporary.open("wb") as stream:
                np.savez_compressed(stream, waveforms=integers, facts=np.array(facts))
        with np.load(path) as stored:
            waveforms = stored["waveforms"].astype(np.float32) / 32767
            return Pool(self.name, waveforms, json.loads(str(stored["facts"])))


def fit_length(waveform: Waveform, size: int) -> Waveform:
    """Cut or fill up with silence at the end: (n,) -> (size,)."""
    return np.pad(waveform[:size], (0, max(0, size - len(waveform))))


def trim_start(waveform: Waveform) -> Waveform:
    """Leave out the quiet beginning, but for 50 ms: (n,) -> (m,), m <= n.

    >>> quiet = np.zeros(16000, np.float32)
    >>> len(trim_start(np.concatenate([quiet, quiet + 0.5])))
    16800
    """
    frame = SAMPLE_RATE // 100
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)  # (t, 160)
    if not len(frames):
        return waveform
    power = np.square(frames.astype(np.float64)).mean(axis=1)
    loud = power > power.max() * 10 ** (-TRIM_BELOW / 10)
    if not loud.any():
        return waveform
    first = int(loud.argmax()) * frame - round(TRIM_KEEP * SAMPLE_RATE)
    return waveform[max(0, first) :]
