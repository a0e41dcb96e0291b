"""Noise, tones and near silence: coloured noise, chords of sines, sweeps, modulated tones, pulses.

Rate: about 0.003 cpu-seconds a second of audio.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from weights.corpus import signals as dsp
from weights.corpus.rendering import SAMPLE_RATE, Waveform
from weights.corpus.signals import Generator


def setup(cache: Path) -> None:
    """Nothing is needed."""


def clip(rng: Random, state: None) -> tuple[Waveform, float]:
    """Sections of 1 to 5 s, each of one kind, with pauses of faint noise: 15 s or so."""
    draw = np.random.default_rng(rng.getrandbits(64))
    sections = []
    for _ in range(draw.integers(3, 8)):
        count = round(SAMPLE_RATE * draw.uniform(1, 5))
        make = KINDS[draw.integers(len(KINDS))]
        fade = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / 200)
        sections.append(dsp.unit(make(draw, count)) * fade * 10 ** draw.uniform(-1.5, 0))
        pause = round(SAMPLE_RATE * draw.uniform(0.0, 0.7))
        sections.append(10 ** draw.uniform(-4, -2) * draw.standard_normal(pause))
    return np.concatenate(sections), SAMPLE_RATE


def noise(draw: Generator, count: int) -> Waveform:
    """Noise of any colour, steady or swelling."""
    swell = dsp.drift(draw, count, draw.uniform(0.3, 4), draw.uniform(0, 1), 1)
    return dsp.coloured(draw, count, draw.uniform(-3, 9)) * swell


def band_noise(draw: Generator, count: int) -> Waveform:
    """A band of noise."""
    low = 10 ** draw.uniform(1.8, 3.6)
    return dsp.band(draw.standard_normal(count), low, low * 2 ** draw.uniform(0.1, 3))


def chord(draw: Generator, count: int) -> Waveform:
    """Up to six harmonic tones."""
    scene = np.zeros(count)
    for base in 10 ** draw.uniform(1.8, 3.5, draw.integers(1, 7)):
        phase = 2 * np.pi * (base * dsp.times(count) + draw.random())
        scene += dsp.harmonics(draw, phase, int(draw.integers(1, 11)), 1.0)
    return scene


def sweep(draw: Generator, count: int) -> Waveform:
    """One to three tones that glide, straight or along a curve."""
    scene = np.zeros(count)
    for _ in range(draw.integers(1, 4)):
        if draw.random() < 0.5:
            first, last = 10 ** draw.uniform(1.9, 3.85, 2)
            path = np.geomspace(first, last, count)
        else:
            path = 10 ** dsp.drift(draw, count, draw.uniform(0.3, 6), 1.9, 3.85)
        scene += dsp.SHAPES[draw.integers(3)](dsp.phase_of(path))
    return scene


def modulated(draw: Generator, count: int) -> Waveform:
    """A tone whose loudness or frequency swings."""
    carrier, rate = 10 ** draw.uniform(2, 3.7), 10 ** draw.uniform(0, 2.3)
    swing = np.sin(2 * np.pi * rate * dsp.times(count))
    path = np.clip(carrier * 2 ** (draw.uniform(0, 0.8) * swing), 20, 7800)
    return np.sin(dsp.phase_of(path)) * (1 + draw.uniform(0, 1) * swing)


def pulses(draw: Generator, count: int) -> Waveform:
    """Regular or hastening pulses, filtered."""
    first, last = 10 ** draw.uniform(0.3, 2.5, 2)
    turns = dsp.phase_of(np.geomspace(first, last, count)) / (2 * np.pi)
    beats = np.diff(np.floor(turns), prepend=0.0)
    low = 10 ** draw.uniform(2, 3.5)
    clicks = dsp.band(beats, low, low * 2 ** draw.uniform(0.2, 2), 1)
    return clicks + 1e-4 * draw.standard_normal(count)


KINDS = (noise, band_noise, chord, sweep, modulated, pulses)
