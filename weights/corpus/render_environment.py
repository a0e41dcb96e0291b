"""Synthesised environment and machines: rain, wind, fire, birds, engines, steps, alarms and more.

A clip of 8 to 20 s is one to three sources, each with random parameters, some of them far away
(low-passed and reverberant). Rate: about 0.01 cpu-seconds a second of audio.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from scipy import signal

from weights.corpus import signals as dsp
from weights.corpus.rendering import SAMPLE_RATE, Waveform
from weights.corpus.signals import Generator


def setup(cache: Path) -> None:
    """Nothing is needed."""


def clip(rng: Random, state: None) -> tuple[Waveform, float]:
    """A scene of one to three sources."""
    draw = np.random.default_rng(rng.getrandbits(64))
    count = round(SAMPLE_RATE * draw.uniform(8, 20))
    scene = np.zeros(count)
    number = draw.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
    for level, source in enumerate(draw.choice(len(SOURCES), number, replace=False)):
        sound = SOURCES[source](draw, count)
        if draw.random() < 0.5:
            sound = far_away(draw, sound)
        scene += dsp.unit(sound) * (1.0 if level == 0 else draw.uniform(0.1, 0.8))
    return scene, SAMPLE_RATE


def far_away(draw: Generator, sound: Waveform) -> Waveform:
    """Low-passed and with a tail of decaying noise, as from a distance or in a hall."""
    tail = dsp.burst(draw, draw.uniform(0.1, 1.5), 6.9)
    wet = signal.fftconvolve(sound, tail / np.linalg.norm(tail))[: len(sound)]
    mix = draw.uniform(0.2, 0.9)
    return dsp.band((1 - mix) * sound + mix * wet, 20, draw.uniform(1500, 7800), 1)


# --- weather and fire ------------------------------------------------------------------


def rain(draw: Generator, count: int) -> Waveform:
    """Drops on a surface over a hiss, swelling and falling."""
    hiss = dsp.band(dsp.coloured(draw, count, draw.uniform(0, 3)), draw.uniform(300, 2000), 7500)
    hiss *= dsp.drift(draw, count, 0.2, 0.5, 1.0) * draw.uniform(0.1, 1.0)
    surface = draw.uniform(400, 4000) * draw.uniform(0.7, 1.6, (12, 2))
    drops = [dsp.ring(draw, 0.03, pair, draw.uniform(150, 600)) for pair in surface]
    per_second = 10 ** draw.uniform(0.7, 2.3)
    return hiss + dsp.scatter(
        draw, count, per_second, lambda: drops[draw.integers(12)], lambda: draw.exponential(1.0)
    )


def wind(draw: Generator, count: int) -> Waveform:
    """Gusts: noise, and howling resonances that move with the strength."""
    strength = dsp.drift(draw, count, 0.4, 0.1, 1.0)
    scene = dsp.coloured(draw, count, draw.uniform(3, 6)) * strength**2
    for _ in range(draw.integers(0, 4)):
        path = draw.uniform(200, 1200) * (0.6 + 0.6 * strength)
        slow = dsp.unit(dsp.band(draw.standard_normal(count), 1, draw.uniform(8, 40), 1))
        scene += draw.uniform(0.2, 1.0) * slow * np.sin(dsp.phase_of(path)) * strength**3
    return scene


def surf(draw: Generator, count: int) -> Waveform:
    """Waves that break: noise swelling every few seconds, brighter when loud."""
    swell = dsp.drift(draw, count, draw.uniform(0.15, 0.4), 0, 1) ** 2
    low, high = dsp.coloured(draw, count, 5), dsp.coloured(draw, count, 1)
    return low * (0.2 + swell) + high * swell**2 * draw.uniform(0.2, 1.0)


def stream(draw: Generator, count: int) -> Waveform:
    """Bubbles: short sines that rise."""

    def bubble() -> Waveform:
        length = round(SAMPLE_RATE * draw.uniform(0.01, 0.08))
        path = 10 ** draw.uniform(2.4, 3.4) * np.linspace(1, draw.uniform(1.0, 1.6), length)
        return np.sin(dsp.phase_of(path)) * np.exp(-np.linspace(0, 6, length))

    per_second = draw.uniform(30, 250)
    bubbles = dsp.scatter(draw, count, per_second, bubble, lambda: draw.exponential(1.0))
    return 0.05 * dsp.coloured(draw, count, 3) + bubbles


def fire(draw: Generator, count: int) -> Waveform:
    """Crackles over a roar."""
    roar = dsp.coloured(draw, count, 6) * dsp.drift(draw, count, 1.5, 0.02, 0.5)
    crackles = dsp.scatter(
        draw,
        count,
        10 ** draw.uniform(0.5, 1.8),
        lambda: dsp.burst(draw, 10 ** draw.uniform(-3, -1.3), 7),
        lambda: draw.pareto(1.5) + 0.2,
    )
    return dsp.band(roar + crackles, 60, 7500, 1)


def thunder(draw: Generator, count: int) -> Waveform:
    """Claps: low noise in overlapping, slowly decaying blows."""

    def clap() -> Waveform:
        sound = np.zeros(5 * SAMPLE_RATE)
        for _ in range(draw.integers(3, 12)):
            blow = dsp.coloured(draw, round(SAMPLE_RATE * draw.uniform(0.3, 3)), draw.uniform(4, 9))
            blow *= np.exp(-np.linspace(0, 6, len(blow)))
            dsp.place(sound, draw.integers(0, SAMPLE_RATE), blow, draw.uniform(0.2, 1))
        return sound

    return 0.02 * dsp.coloured(draw, count, 3) + dsp.scatter(draw, count, 0.15, clap)


# --- animals ---------------------------------------------------------------------------


def birds(draw: Generator, count: int) -> Waveform:
    """A few birds: swept, trilled and noisy notes in phrases, each bird with other notes."""
    scene = np.zeros(count)
    for _ in range(draw.integers(1, 5)):
        base, span = 10 ** draw.uniform(3.1, 3.75), draw.uniform(0.05, 0.6)
        pause = np.zeros(round(SAMPLE_RATE * draw.uniform(0.02, 0.3)))
        song: list[Waveform] = []
        for _ in range(draw.integers(1, 7)):
            song += [_note(draw, base * 2 ** draw.uniform(-span, span), span), pause]
        phrase = np.concatenate(song * int(draw.integers(1, 4)))
        scene += dsp.scatter(draw, count, draw.uniform(0.15, 0.8), partial(np.copy, phrase))
    return scene


def _note(draw: Generator, base: float, span: float) -> Waveform:
    time = np.linspace(0, 1, round(SAMPLE_RATE * 10 ** draw.uniform(-1.5, -0.3)))
    path = base * 2 ** (span * (draw.uniform(-1, 1) * time + draw.uniform(-1, 1) * time**2))
    if draw.random() < 0.4:  # a trill
        path *= 2 ** (draw.uniform(0.02, 0.2) * np.sin(2 * np.pi * draw.uniform(2, 30) * time))
    phase = dsp.phase_of(np.clip(path, 200, 7800))
    wave = np.sin(phase) + draw.uniform(0, 0.3) * np.sin(2 * phase)
    return wave * np.sin(np.pi * time) ** draw.uniform(0.3, 1.5)


def insects(draw: Generator, count: int) -> Waveform:
    """Crickets and cicadas: high tones or bands, pulsed regularly, several out of step."""
    scene, time = np.zeros(count), dsp.times(count)
    for _ in range(draw.integers(1, 6)):
        centre, pulse = draw.uniform(2200, 7000), draw.uniform(12, 90)
        carrier = np.sin(2 * np.pi * centre * time)
        if draw.random() < 0.4:
            carrier = dsp.unit(dsp.band(draw.standard_normal(count), 0.9 * centre, 1.1 * centre))
        gate = np.maximum(0, np.sin(2 * np.pi * (pulse * time + draw.random())))
        chirp = np.sin(2 * np.pi * (draw.uniform(0.3, 4) * time + draw.random()))
        chirping = signal.lfilter([0.01], [1, -0.99], chirp > draw.uniform(-1, 0.5))
        scene += carrier * gate ** draw.uniform(1, 6) * chirping * draw.uniform(0.2, 1)
    return scene


def calls(draw: Generator, count: int) -> Waveform:
    """Cries of larger animals: voiced pulses through a few formants that move."""
    base, rough = 10 ** draw.uniform(1.8, 2.9), draw.uniform(0, 0.6)

    def cry() -> Waveform:
        length = round(SAMPLE_RATE * draw.uniform(0.15, 1.6))
        arch = np.sin(np.pi * np.linspace(0, 1, length))
        path = base * 2 ** (draw.uniform(-0.5, 0.8) * arch + 0.02 * draw.standard_normal())
        path *= 1 + rough * 0.1 * dsp.unit(dsp.band(draw.standard_normal(length), 15, 90, 1))
        voice = signal.sawtooth(dsp.phase_of(path)) + rough * draw.standard_normal(length)
        for low in draw.uniform(250, 3000, 3):
            voice += 2 * dsp.band(voice, low, 1.3 * low, 1)
        return voice * np.maximum(arch, 0) ** 0.5

    return dsp.scatter(draw, count, draw.uniform(0.2, 1.2), cry, lambda: draw.uniform(0.4, 1))


# --- machines and signals --------------------------------------------------------------


def engine(draw: Generator, count: int) -> Waveform:
    """Firing pulses at a speed that changes, through the resonances of body and exhaust."""
    slow, fast = np.sort(10 ** draw.uniform(0.9, 2.3, 2))
    turns = dsp.phase_of(dsp.drift(draw, count, draw.uniform(0.1, 0.6), slow, fast)) / (2 * np.pi)
    cylinders = draw.uniform(0.5, 1.0, draw.integers(1, 7))
    strength = cylinders[np.floor(turns).astype(int) % len(cylinders)]
    pulse = np.exp(-draw.uniform(3, 20) * (turns % 1)) * strength
    sound = pulse - pulse.mean() + draw.uniform(0.02, 0.4) * dsp.coloured(draw, count, 4) * pulse
    for low in 10 ** draw.uniform(1.7, 3.3, draw.integers(2, 6)):
        sound += draw.uniform(0.3, 2) * dsp.band(sound, low, 1.4 * low, 1)
    return sound


def motor(draw: Generator, count: int) -> Waveform:
    """Fans and electric motors: hum with harmonics and blade noise; or the hum of the mains."""
    speed = dsp.drift(draw, count, 0.2, 0.97, 1.03) * 10 ** draw.uniform(1.5, 2.9)
    if draw.random() < 0.4:
        speed = np.full(count, draw.choice([50.0, 60.0]))
    phase = dsp.phase_of(speed)
    noise = draw.uniform(0.01, 2) * dsp.coloured(draw, count, draw.uniform(0, 6))
    noise *= 1 + draw.uniform(0, 0.7) * np.sin(phase / draw.integers(1, 6))
    return noise + dsp.harmonics(draw, phase, int(draw.integers(2, 40)), draw.uniform(0.3, 2))


def alarm(draw: Generator, count: int) -> Waveform:
    """Sirens, beeps and bells of telephones: tones in a fixed rhythm."""
    time, rate = dsp.times(count), 10 ** draw.uniform(-0.7, 1.2)
    swing = dsp.SHAPES[draw.integers(3)](2 * np.pi * rate * time)
    path = 10 ** draw.uniform(2.5, 3.4) * 2 ** (draw.uniform(0, 1) * swing)
    beep = (time * draw.uniform(0.3, 6) % 1) < draw.uniform(0.2, 1.1)
    wave = dsp.SHAPES[draw.integers(3)](dsp.phase_of(path))
    return wave * signal.lfilter([0.02], [1, -0.98], beep)


def steps(draw: Generator, count: int) -> Waveform:
    """Footsteps: heel and toe on a hard, wooden or loose floor."""
    scene, loose = np.zeros(count), draw.random() < 0.4
    low, pace = 10 ** draw.uniform(1.8, 2.8), draw.uniform(0.28, 0.9)
    now = draw.uniform(0, 1)
    while now * SAMPLE_RATE < count:
        for part in (0.0, draw.uniform(0.05, 0.15)):
            hit = dsp.burst(draw, draw.uniform(0.04, 0.25), 4 if loose else 9)
            if loose:  # gravel, snow, leaves: grains
                hit *= draw.random(len(hit)) < draw.uniform(0.02, 0.4)
            dsp.place(scene, (now + part) * SAMPLE_RATE, hit, draw.uniform(0.4, 1))
        now += pace * draw.uniform(0.9, 1.1)
    return dsp.band(scene, low, 3 * low, 1) + draw.uniform(0.02, 0.6) * scene


def objects(draw: Generator, count: int) -> Waveform:
    """Wood, glass, metal and keys that are struck or dropped, at random or like a clock."""
    decay = 10 ** draw.uniform(0.3, 2.9)  # of the material, per second
    modes = 10 ** draw.uniform(2, 3.5) * np.sort(draw.uniform(1, 9, draw.integers(3, 16)))
    modes = np.minimum(modes, 0.47 * SAMPLE_RATE)

    def hit() -> Waveform:
        sound = dsp.ring(draw, min(3.0, 7 / decay), modes * draw.uniform(0.97, 1.0), decay)
        scene, start, gap, gain = np.zeros(len(sound) + 2 * SAMPLE_RATE), 0.0, 4000.0, 1.0
        for _ in range(draw.integers(1, 6) if draw.random() < 0.3 else 1):  # it bounces
            dsp.place(scene, start, sound, gain)
            start, gap, gain = start + gap, 0.75 * gap, 0.6 * gain
        return scene

    per_second = 10 ** draw.uniform(-0.5, 1.1)
    if draw.random() < 0.7:
        return dsp.scatter(draw, count, per_second, hit, lambda: draw.uniform(0.3, 1))
    scene = np.zeros(count)
    for start in np.arange(0, count, SAMPLE_RATE / per_second):
        dsp.place(scene, start, hit())
    return scene


SOURCES: tuple[Callable[[Generator, int], Waveform], ...] = (
    rain, wind, surf, stream, fire, thunder, birds, insects, calls, engine, motor, alarm, steps,
    objects,
)  # fmt: skip
