"""Recordings of the corpus in rooms.

Excerpts, some of them two at once, go through early reflections and a decaying tail. Which excerpts
are drawn depends on the recordings that are built, so this kind is built last.

Rate: about 0.004 cpu-seconds a second of audio.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from scipy import signal

from hear_msm_mae.audio import read_audio
from weights.corpus import signals as dsp
from weights.corpus.packages import AUDIO_SUFFIXES, BuildError, duration
from weights.corpus.rendering import SAMPLE_RATE, Waveform
from weights.corpus.signals import Generator

KINDS = ("speech", "music", "sound")
LONGEST_SECONDS = 12.0


def setup(cache: Path) -> list[Path]:
    """The recordings that are built beside the cache."""
    files = [
        file
        for kind in KINDS
        for file in sorted((cache.parent / kind).rglob("*"))
        if file.suffix.lower() in AUDIO_SUFFIXES
    ]
    if not files:
        raise BuildError("no recordings for the rooms: build speech, music and sound first")
    return files


def clip(rng: Random, files: list[Path]) -> tuple[Waveform, float]:
    """An excerpt in a room; in three of ten cases another one farther away in the same room."""
    draw = np.random.default_rng(rng.getrandbits(64))
    reverberation = rng.uniform(0.15, 2.0)
    scene = in_room(draw, excerpt(rng, files), reverberation, rng.uniform(0.1, 1.5))
    if rng.random() < 0.3:
        second = in_room(draw, excerpt(rng, files), reverberation, 2.0)
        shared = min(len(scene), len(second))
        scene[:shared] += rng.uniform(0.1, 0.7) * second[:shared]
    return scene, SAMPLE_RATE


def excerpt(rng: Random, files: list[Path]) -> Waveform:
    """Up to 12 s of a recording, mono, at the rate of the corpus."""
    # Most recordings are short effects: the longest of five is taken.
    file = max(rng.choices(files, k=5), key=duration)
    start = rng.uniform(0, max(0.0, duration(file) - LONGEST_SECONDS))
    return read_audio(file, start, start + LONGEST_SECONDS)


def in_room(draw: Generator, dry: Waveform, seconds: float, distance: float) -> Waveform:
    """The sound in a room whose tail falls by 60 dB in `seconds`, of unit power.

    Args:
        distance: of the source; the reverberant part has this amplitude relative to the direct one.
    """
    response = room_response(draw, seconds)
    response[0] = np.linalg.norm(response[1:]) / distance
    return dsp.unit(signal.fftconvolve(dry, response)[: len(dry) + len(response) // 2])


def room_response(draw: Generator, seconds: float) -> Waveform:
    """Reflections, (n,): some early ones, then noise that decays faster at high frequencies."""
    count = round(seconds * SAMPLE_RATE)
    time = np.arange(count) / seconds / SAMPLE_RATE  # 0 to 1 where the tail has fallen by 60 dB
    response = np.zeros(count)
    for low, high in ((60, 700), (700, 2500), (2500, 7800)):
        damping = 6.9 * (1 if low < 700 else draw.uniform(1, 2.5))
        response += dsp.band(draw.standard_normal(count), low, high, 1) * np.exp(-damping * time)
    response[: round(draw.uniform(0.002, 0.03) * SAMPLE_RATE)] = 0  # the way to the nearest wall
    for delay in draw.uniform(0.002, 0.06, draw.integers(3, 9)):
        response[min(count - 1, round(delay * SAMPLE_RATE))] += draw.uniform(-2, 2)
    return response
