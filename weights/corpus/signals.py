"""Building blocks of synthesised sound: noise, filters, slow curves, grains at random times.

`draw` is the random generator of a clip, `count` a number of samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import signal

from weights.corpus.rendering import SAMPLE_RATE, Waveform

Generator = np.random.Generator
Real = float | np.number[Any]
SHAPES = (np.sin, signal.square, signal.sawtooth)  # of oscillators


def unit(sound: Waveform) -> Waveform:
    """Divided by its root mean square."""
    return sound / (np.sqrt(np.mean(sound**2)) + 1e-9)


def times(count: int) -> Waveform:
    """Time of each sample in seconds."""
    return np.arange(count) / SAMPLE_RATE


def coloured(draw: Generator, count: int, slope: float) -> Waveform:
    """Noise whose spectrum falls by `slope` dB an octave."""
    spectrum = np.fft.rfft(draw.standard_normal(count))
    frequency = np.maximum(np.arange(len(spectrum)), 20 * count / SAMPLE_RATE)
    return unit(np.fft.irfft(spectrum * frequency ** (-slope / 6.02), count))


def band(sound: Waveform, low: float, high: float, order: int = 2) -> Waveform:
    """The band from `low` to `high` Hz."""
    edges = [max(low, 0.5), min(high, 0.49 * SAMPLE_RATE)]
    return signal.sosfilt(signal.butter(order, edges, "band", fs=SAMPLE_RATE, output="sos"), sound)


def drift(draw: Generator, count: int, rate: float, low: float, high: float) -> Waveform:
    """A smooth random curve between two values, with about `rate` turns a second."""
    points = max(4, round(count / SAMPLE_RATE * rate) + 3)
    knots = np.linspace(0, count, points)
    curve = np.interp(np.arange(count), knots, draw.uniform(low, high, points))
    width = max(3, round(SAMPLE_RATE / rate / 4))
    padded = np.pad(curve, width, "edge")
    return signal.fftconvolve(padded, np.full(width, 1 / width), "same")[width:-width]


def phase_of(frequency: Waveform) -> Waveform:
    """Phase of an oscillator whose frequency (n,) in Hz changes."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def harmonics(draw: Generator, phase: Waveform, number: int, slope: float) -> Waveform:
    """The first harmonics of a phase, those below 7.7 kHz, with random levels.

    Args:
        draw: see above.
        phase: (n,) in radians.
        number: of harmonics, the first included.
        slope: levels fall by this power of the number of the harmonic.
    """
    highest = 0.96 * np.pi / np.diff(phase).max()
    scene = np.zeros(len(phase))
    for n in range(1, min(number, int(highest)) + 1):
        scene += draw.uniform(0, 1) / n**slope * np.sin(n * phase)
    return scene


def ring(draw: Generator, seconds: float, frequencies: np.ndarray, decay: float) -> Waveform:
    """Struck resonances: decaying sines, the higher ones faster."""
    time = times(round(seconds * SAMPLE_RATE))
    gains = draw.uniform(0.2, 1.0, len(frequencies))
    rates = decay * (frequencies / frequencies[0]) ** draw.uniform(0.2, 1.0)
    waves = np.sin(2 * np.pi * frequencies[:, None] * time) * np.exp(-rates[:, None] * time)
    return gains @ waves


def burst(draw: Generator, seconds: float, decay: float) -> Waveform:
    """White noise that decays by `decay` nepers over its length."""
    length = round(SAMPLE_RATE * seconds)
    return draw.standard_normal(length) * np.exp(-np.linspace(0, decay, length))


def place(scene: Waveform, start: Real, sound: Waveform, gain: float = 1.0) -> None:
    """Add a sound from a sample on; what is past the end is cut off."""
    first = int(start)
    room = scene[first : first + len(sound)]
    room += gain * sound[: len(room)]


def scatter(
    draw: Generator,
    count: int,
    per_second: float,
    make: Callable[[], Waveform],
    gain: Callable[[], float] = lambda: 1.0,
) -> Waveform:
    """Sounds at random times (Poisson), at least one.

    Args:
        draw, count: see above.
        per_second: mean number a second.
        make: gives the next sound.
        gain: gives its gain.
    """
    scene = np.zeros(count)
    for start in draw.integers(0, count, draw.poisson(per_second * count / SAMPLE_RATE) + 1):
        place(scene, start, make(), gain())
    return scene
