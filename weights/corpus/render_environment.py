"""Synthesised environment and machines: rain, wind, fire, birds, engines, steps, alarms and more.

A clip of 8 to 20 s is one to three sources, each with parameters of its own, some of them far away
(low-passed and reverberant). Rate: about 0.03 cpu-seconds a second of audio.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from scipy import signal

from weights.corpus.rendering import SAMPLE_RATE, Waveform

Generator = np.random.Generator


def setup(cache: Path) -> None:
    """Nothing is needed."""


def clip(rng: Random, state: None) -> tuple[Waveform, int]:
    """A scene of one to three sources."""
    draw = np.random.default_rng(rng.getrandbits(64))
    count = round(SAMPLE_RATE * draw.uniform(8, 20))
    scene = np.zeros(count)
    names = draw.choice(
        list(SOURCES), size=draw.choice([1, 2, 3], p=[0.6, 0.3, 0.1]), replace=False
    )
    for level, name in enumerate(names):
        sound = SOURCES[str(name)](draw, count)
        if draw.random() < 0.5:
            sound = far_away(draw, sound)
        scene += unit(sound) * (1.0 if level == 0 else draw.uniform(0.1, 0.8))
    return scene, SAMPLE_RATE


# --- tools -----------------------------------------------------------------------------


def unit(sound: Waveform) -> Waveform:
    """Divided by its root mean square."""
    return sound / (np.sqrt(np.mean(sound**2)) + 1e-9)


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
    return signal.fftconvolve(np.pad(curve, width, "edge"), np.full(width, 1 / width), "same")[
        width:-width
    ]


def events(draw: Generator, count: int, per_second: float) -> np.ndarray:
    """Random onsets in samples, Poisson."""
    number = draw.poisson(per_second * count / SAMPLE_RATE) + 1
    return np.sort(draw.integers(0, count, number))


def place(scene: Waveform, start: int, sound: Waveform, gain: float = 1.0) -> None:
    """Add a sound at an onset; what is past the end is cut off."""
    room = scene[start : start + len(sound)]
    room += gain * sound[: len(room)]


def ring(draw: Generator, seconds: float, frequencies: np.ndarray, decay: float) -> Waveform:
    """Struck resonances: decaying sines, the higher ones faster."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    gains = draw.uniform(0.2, 1.0, len(frequencies))
    rates = decay * (frequencies / frequencies[0]) ** draw.uniform(0.2, 1.0)
    waves = np.sin(2 * np.pi * frequencies[:, None] * time) * np.exp(-rates[:, None] * time)
    return gains @ waves


def phase_of(frequency: Waveform) -> Waveform:
    """Phase of an oscillator whose frequency (n,) in Hz changes."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def far_away(draw: Generator, sound: Waveform) -> Waveform:
    """Low-passed and with a tail of decaying noise, as from a distance or in a hall."""
    length = round(SAMPLE_RATE * draw.uniform(0.1, 1.5))
    tail = draw.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    wet = signal.fftconvolve(sound, unit(tail) / np.sqrt(length))[: len(sound)]
    mix = draw.uniform(0.2, 0.9)
    return band((1 - mix) * sound + mix * wet, 20, draw.uniform(1500, 7800), 1)


# --- weather and fire ------------------------------------------------------------------


def rain(draw: Generator, count: int) -> Waveform:
    """Drops on a surface over a hiss, swelling and falling."""
    hiss = band(coloured(draw, count, draw.uniform(0, 3)), draw.uniform(300, 2000), 7500)
    scene = hiss * drift(draw, count, 0.2, 0.5, 1.0) * draw.uniform(0.1, 1.0)
    surface = draw.uniform(400, 4000)
    drops = [
        ring(draw, 0.03, surface * draw.uniform(0.7, 1.6, 2), draw.uniform(150, 600))
        for _ in range(12)
    ]
    for onset in events(draw, count, 10 ** draw.uniform(0.7, 2.3)):
        place(scene, onset, drops[draw.integers(12)], draw.exponential(1.0))
    return scene


def wind(draw: Generator, count: int) -> Waveform:
    """Gusts: noise through resonances that move with the strength."""
    noise, strength = coloured(draw, count, draw.uniform(3, 6)), drift(draw, count, 0.4, 0.1, 1.0)
    scene = noise * strength**2
    for _ in range(draw.integers(0, 4)):  # howling
        centre = draw.uniform(200, 1200) * (0.6 + 0.6 * strength)
        slow = band(draw.standard_normal(count), 1, draw.uniform(8, 40), 1)
        scene += draw.uniform(0.2, 1.0) * unit(slow) * np.sin(phase_of(centre)) * strength**3
    return scene


def surf(draw: Generator, count: int) -> Waveform:
    """Waves that break: noise swelling every few seconds, brighter when loud."""
    swell = drift(draw, count, draw.uniform(0.15, 0.4), 0, 1) ** 2
    low, high = coloured(draw, count, 5), coloured(draw, count, 1)
    return low * (0.2 + swell) + high * swell**2 * draw.uniform(0.2, 1.0)


def stream(draw: Generator, count: int) -> Waveform:
    """Bubbles: short sines that rise."""
    scene = 0.05 * coloured(draw, count, 3)
    for onset in events(draw, count, draw.uniform(30, 250)):
        length = round(SAMPLE_RATE * draw.uniform(0.01, 0.08))
        start = 10 ** draw.uniform(2.4, 3.4)
        path = start * np.linspace(1, draw.uniform(1.0, 1.6), length)
        envelope = np.exp(-np.linspace(0, 6, length))
        place(scene, onset, np.sin(phase_of(path)) * envelope, draw.exponential(1.0))
    return scene


def fire(draw: Generator, count: int) -> Waveform:
    """Crackles over a roar."""
    scene = coloured(draw, count, 6) * drift(draw, count, 1.5, 0.2, 1.0) * draw.uniform(0.05, 0.5)
    for onset in events(draw, count, 10 ** draw.uniform(0.5, 1.8)):
        length = round(SAMPLE_RATE * 10 ** draw.uniform(-3, -1.3))
        crack = draw.standard_normal(length) * np.exp(-np.linspace(0, 7, length))
        place(scene, onset, crack, draw.pareto(1.5) + 0.2)
    return band(scene, 60, 7500, 1)


def thunder(draw: Generator, count: int) -> Waveform:
    """Claps: low noise in overlapping, slowly decaying blows."""
    scene = 0.02 * coloured(draw, count, 3)
    for onset in events(draw, count, 0.15):
        for _ in range(draw.integers(3, 12)):
            length = round(SAMPLE_RATE * draw.uniform(0.3, 3))
            blow = coloured(draw, length, draw.uniform(4, 9)) * np.exp(-np.linspace(0, 6, length))
            place(scene, onset + draw.integers(0, SAMPLE_RATE), blow, draw.uniform(0.2, 1))
    return scene


# --- animals ---------------------------------------------------------------------------


def birds(draw: Generator, count: int) -> Waveform:
    """A few birds, each with a song of its own: swept, trilled and noisy notes in phrases."""
    scene = np.zeros(count)
    for _ in range(draw.integers(1, 5)):
        base, span = 10 ** draw.uniform(3.1, 3.75), draw.uniform(0.05, 0.6)
        song = [
            _note(draw, base * 2 ** draw.uniform(-span, span), span)
            for _ in range(draw.integers(1, 7))
        ]
        gap = draw.uniform(0.02, 0.3)
        for onset in events(draw, count, draw.uniform(0.15, 0.8)):
            for _ in range(draw.integers(1, 4)):
                for note in song:
                    place(scene, onset, note, draw.uniform(0.6, 1))
                    onset += len(note) + round(SAMPLE_RATE * gap)
    return scene


def _note(draw: Generator, base: float, span: float) -> Waveform:
    length = round(SAMPLE_RATE * 10 ** draw.uniform(-1.5, -0.3))
    time = np.linspace(0, 1, length)
    path = base * 2 ** (span * (draw.uniform(-1, 1) * time + draw.uniform(-1, 1) * time**2))
    if draw.random() < 0.4:  # a trill
        path *= 2 ** (draw.uniform(0.02, 0.2) * np.sin(2 * np.pi * draw.uniform(2, 30) * time))
    phase = phase_of(np.clip(path, 200, 7800))
    wave = np.sin(phase) + draw.uniform(0, 0.3) * np.sin(2 * phase)
    return wave * np.sin(np.pi * time) ** draw.uniform(0.3, 1.5)


def insects(draw: Generator, count: int) -> Waveform:
    """Crickets and cicadas: high tones or bands, pulsed regularly, several out of step."""
    scene, time = np.zeros(count), np.arange(count) / SAMPLE_RATE
    for _ in range(draw.integers(1, 6)):
        centre, pulse = draw.uniform(2200, 7000), draw.uniform(12, 90)
        carrier = np.sin(2 * np.pi * centre * time)
        if draw.random() < 0.4:
            carrier = unit(band(draw.standard_normal(count), 0.9 * centre, 1.1 * centre))
        gate = np.maximum(0, np.sin(2 * np.pi * (pulse * time + draw.random()))) ** draw.uniform(
            1, 6
        )
        chirp = np.sin(2 * np.pi * (draw.uniform(0.3, 4) * time + draw.random())) > draw.uniform(
            -1, 0.5
        )
        smooth = signal.lfilter([0.01], [1, -0.99], chirp.astype(float))
        scene += carrier * gate * smooth * draw.uniform(0.2, 1)
    return scene


def calls(draw: Generator, count: int) -> Waveform:
    """Cries of larger animals: voiced pulses through a few formants that move."""
    scene = np.zeros(count)
    base, rough = 10 ** draw.uniform(1.8, 2.9), draw.uniform(0, 0.6)
    for onset in events(draw, count, draw.uniform(0.2, 1.2)):
        length = round(SAMPLE_RATE * draw.uniform(0.15, 1.6))
        time = np.linspace(0, 1, length)
        path = base * 2 ** (
            draw.uniform(-0.5, 0.8) * np.sin(np.pi * time) + 0.02 * draw.standard_normal()
        )
        path *= 1 + rough * 0.1 * unit(band(draw.standard_normal(length), 15, 90, 1))
        voice = signal.sawtooth(phase_of(path)) + rough * draw.standard_normal(length)
        for _ in range(3):
            low = draw.uniform(250, 3000)
            voice += 2 * band(voice, low, 1.3 * low, 1)
        place(scene, onset, voice * np.sin(np.pi * time) ** 0.5, draw.uniform(0.4, 1))
    return scene


# --- machines and signals --------------------------------------------------------------


def engine(draw: Generator, count: int) -> Waveform:
    """Firing pulses at a speed that changes, through the resonances of body and exhaust."""
    speed = drift(draw, count, draw.uniform(0.1, 0.6), *np.sort(10 ** draw.uniform(0.9, 2.3, 2)))
    phase = phase_of(speed)
    cylinders = draw.uniform(0.5, 1.0, draw.integers(1, 7))
    index = np.floor(phase / (2 * np.pi)).astype(int) % len(cylinders)
    pulse = np.exp(-draw.uniform(3, 20) * (phase / (2 * np.pi) % 1)) * cylinders[index]
    sound = pulse - pulse.mean() + draw.uniform(0.02, 0.4) * coloured(draw, count, 4) * pulse
    for _ in range(draw.integers(2, 6)):
        low = 10 ** draw.uniform(1.7, 3.3)
        sound += draw.uniform(0.3, 2) * band(sound, low, 1.4 * low, 1)
    return sound


def motor(draw: Generator, count: int) -> Waveform:
    """Fans and electric motors: hum with harmonics and blade noise."""
    speed = drift(draw, count, 0.2, 0.97, 1.03) * 10 ** draw.uniform(1.5, 2.9)
    phase = phase_of(speed)
    sound = draw.uniform(0.1, 2) * coloured(draw, count, draw.uniform(1, 6))
    sound *= 1 + draw.uniform(0, 0.7) * np.sin(phase / draw.integers(1, 6))
    for harmonic in range(1, draw.integers(3, 20)):
        sound += draw.uniform(0, 1) / harmonic ** draw.uniform(0.3, 1.5) * np.sin(harmonic * phase)
    return sound


def hum(draw: Generator, count: int) -> Waveform:
    """Mains hum and buzz over hiss."""
    time = np.arange(count) / SAMPLE_RATE
    base = draw.choice([50.0, 60.0])
    harmonics = np.arange(1, draw.integers(3, 60))
    gains = draw.uniform(0, 1, len(harmonics)) / harmonics ** draw.uniform(0.3, 2)
    sound = sum(
        g * np.sin(2 * np.pi * base * h * time) for g, h in zip(gains, harmonics, strict=True)
    )
    return sound + draw.uniform(0.01, 0.5) * coloured(draw, count, draw.uniform(0, 3))


def alarm(draw: Generator, count: int) -> Waveform:
    """Sirens, beeps and bells of telephones: tones in a fixed rhythm."""
    time = np.arange(count) / SAMPLE_RATE
    low, rate = 10 ** draw.uniform(2.5, 3.4), 10 ** draw.uniform(-0.7, 1.2)
    shape = [np.sin, signal.square, signal.sawtooth][draw.integers(3)]
    path = low * 2 ** (draw.uniform(0, 1) * shape(2 * np.pi * rate * time))
    timbre = [np.sin, signal.square, signal.sawtooth][draw.integers(3)]
    beep = (time * draw.uniform(0.3, 6) % 1) < draw.uniform(0.2, 1.1)
    smooth = signal.lfilter([0.02], [1, -0.98], beep.astype(float))
    return timbre(phase_of(path)) * smooth


def steps(draw: Generator, count: int) -> Waveform:
    """Footsteps: heel and toe on a hard, wooden or loose floor."""
    scene, loose = np.zeros(count), draw.random() < 0.4
    low, pace = 10 ** draw.uniform(1.8, 2.8), draw.uniform(0.28, 0.9)
    now = draw.uniform(0, 1)
    while now * SAMPLE_RATE < count:
        for part in (0.0, draw.uniform(0.05, 0.15)):
            length = round(SAMPLE_RATE * draw.uniform(0.04, 0.25))
            hit = draw.standard_normal(length) * np.exp(-np.linspace(0, 4 if loose else 9, length))
            if loose:  # gravel, snow, leaves: grains
                hit *= draw.random(length) < draw.uniform(0.02, 0.4)
            place(scene, round((now + part) * SAMPLE_RATE), hit, draw.uniform(0.4, 1))
        now += pace * draw.uniform(0.9, 1.1)
    body = band(scene, low, 3 * low, 1)
    return body + draw.uniform(0.02, 0.6) * scene


def knocks(draw: Generator, count: int) -> Waveform:
    """Wood, glass and metal being struck, scraped and dropped."""
    scene = np.zeros(count)
    material = 10 ** draw.uniform(0.3, 2.2)  # rate of decay
    modes = 10 ** draw.uniform(2, 3.3) * np.sort(draw.uniform(1, 9, draw.integers(3, 16)))
    modes = modes[modes < 0.47 * SAMPLE_RATE]
    if not len(modes):
        modes = np.array([1000.0])
    for onset in events(draw, count, draw.uniform(0.3, 5)):
        hit = ring(draw, min(3.0, 7 / material), modes * draw.uniform(0.97, 1.03), material)
        bounce, gap, gain = draw.integers(1, 6), draw.uniform(0.05, 0.4), draw.uniform(0.3, 1)
        for _ in range(bounce if draw.random() < 0.3 else 1):
            place(scene, round(onset), hit, gain)
            onset, gap, gain = onset + gap * SAMPLE_RATE, 0.75 * gap, 0.6 * gain
    return scene


def clicks(draw: Generator, count: int) -> Waveform:
    """Keys, ratchets and clocks: short clicks, regular or in bursts."""
    scene = 1e-4 * coloured(draw, count, 2)
    kinds = [
        ring(draw, 0.05, np.sort(10 ** draw.uniform(2.5, 3.8, 4)), draw.uniform(80, 900))
        for _ in range(4)
    ]
    if draw.random() < 0.5:
        onsets = np.arange(0, count, SAMPLE_RATE / draw.uniform(0.8, 25))
    else:
        onsets = events(draw, count, draw.uniform(1, 12))
    for onset in onsets:
        place(scene, int(onset), kinds[draw.integers(4)], draw.uniform(0.3, 1))
    return scene


SOURCES: dict[str, Callable[[Generator, int], Waveform]] = {
    source.__name__: source
    for source in (
        rain, wind, surf, stream, fire, thunder, birds, insects, calls, engine, motor, hum, alarm,
        steps, knocks, clicks,
    )
}  # fmt: skip
