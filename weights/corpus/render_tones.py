"""Noise, tones and near silence: coloured noise, chords of sines, sweeps, modulated tones, pulses.

Rate: about 0.01 cpu-seconds a second of audio.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from scipy import signal

from weights.corpus.render_environment import band, coloured, drift, phase_of, unit
from weights.corpus.rendering import SAMPLE_RATE, Waveform

Generator = np.random.Generator


def setup(cache: Path) -> None:
    """Nothing is needed."""


def clip(rng: Random, state: None) -> tuple[Waveform, int]:
    """Sections of 1 to 5 s, each of one kind, with pauses of faint noise: 15 s or so."""
    draw = np.random.default_rng(rng.getrandbits(64))
    sections = []
    for _ in range(draw.integers(3, 8)):
        count = round(SAMPLE_RATE * draw.uniform(1, 5))
        make = KINDS[draw.integers(len(KINDS))]
        fade = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / 200)
        sections.append(unit(make(draw, count)) * fade * 10 ** draw.uniform(-1.5, 0))
        pause = round(SAMPLE_RATE * draw.uniform(0.0, 0.7))
        sections.append(10 ** draw.uniform(-4, -2) * draw.standard_normal(pause))
    return np.concatenate(sections), SAMPLE_RATE


def noise(draw: Generator, count: int) -> Waveform:
    """Noise of any colour, steady or swelling."""
    swell = drift(draw, count, draw.uniform(0.3, 4), draw.uniform(0, 1), 1)
    return coloured(draw, count, draw.uniform(-3, 9)) * swell


def band_noise(draw: Generator, count: int) -> Waveform:
    """A band of noise."""
    low = 10 ** draw.uniform(1.8, 3.6)
    return band(draw.standard_normal(count), low, low * 2 ** draw.uniform(0.1, 3))


def chord(draw: Generator, count: int) -> Waveform:
    """Up to six harmonic tones."""
    time, scene = np.arange(count) / SAMPLE_RATE, np.zeros(count)
    for _ in range(draw.integers(1, 7)):
        base = 10 ** draw.uniform(1.8, 3.5)
        for harmonic in range(1, draw.integers(2, 12)):
            if base * harmonic < 0.48 * SAMPLE_RATE:
                phase = 2 * np.pi * (base * harmonic * time + draw.random())
                scene += draw.uniform(0, 1) / harmonic * np.sin(phase)
    return scene


def sweep(draw: Generator, count: int) -> Waveform:
    """One to three tones that glide, straight or along a curve."""
    scene = np.zeros(count)
    for _ in range(draw.integers(1, 4)):
        path = 10 ** drift(draw, count, draw.uniform(0.3, 6), 1.9, 3.85)
        if draw.random() < 0.5:
            first, last = 10 ** draw.uniform(1.9, 3.85, 2)
            path = np.geomspace(first, last, count)
        shape = [np.sin, signal.square, signal.sawtooth][draw.integers(3)]
        scene += shape(phase_of(path))
    return scene


def modulated(draw: Generator, count: int) -> Waveform:
    """A tone whose loudness or frequency swings."""
    time = np.arange(count) / SAMPLE_RATE
    carrier, rate = 10 ** draw.uniform(2, 3.7), 10 ** draw.uniform(0, 2.3)
    swing = np.sin(2 * np.pi * rate * time)
    path = np.clip(carrier * 2 ** (draw.uniform(0, 0.8) * swing), 20, 7800)
    return np.sin(phase_of(path)) * (1 + draw.uniform(0, 1) * swing)


def pulses(draw: Generator, count: int) -> Waveform:
    """Regular or hastening pulses, filtered."""
    first, last = 10 ** draw.uniform(0.3, 2.5, 2)
    rate = np.geomspace(first, last, count)
    beats = np.diff(np.floor(phase_of(rate) / (2 * np.pi)), prepend=0.0)
    low = 10 ** draw.uniform(2, 3.5)
    return band(beats, low, low * 2 ** draw.uniform(0.2, 2), 1) + 1e-4 * draw.standard_normal(count)


KINDS = (noise, band_noise, chord, sweep, modulated, pulses)
