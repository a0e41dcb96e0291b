"""Changes of log-mel crops, and crops that are drawn by formulas, on the device of the model.

Everything is computed for a whole batch, on mel power. Powers of independent sounds add up, which
makes mixing a sum and reverberation a convolution along time.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import LOG_EPS, MS_PER_FRAME
from ..log_mel import mel_filter_bank
from .randomness import between, more_bits
from .settings import Settings

MIX_DB = (-20.0, 0.0)  # level of the second crop relative to the first
DECAY_SECONDS = (0.15, 2.0)  # time in which the lowest band's reverberation falls by 60 dB
DAMPING = (0.3, 1.0)  # the highest band's decay time relative to it
TAIL_DB = (-12.0, 6.0)  # energy of the reverberation relative to the direct sound
VOICES = 3  # of a procedural crop
WINDOW_HERTZ = 30.0  # blur of a pure tone by the Hann window of 25 ms, as a standard deviation


def to_power(log_mel: Tensor) -> Tensor:
    """Mel power of log-mel values, in place."""
    return log_mel.exp_().sub_(LOG_EPS).clamp_min_(0)


def to_log_mel(power: Tensor) -> Tensor:
    """Log-mel values of mel power, in place; the inverse of `to_power`."""
    return power.add_(LOG_EPS).log_()


def to_factor(decibels: Tensor) -> Tensor:
    """Power ratio of a level in dB."""
    return (decibels * (math.log(10) / 10)).exp()


def augmented(
    power: Tensor,
    changes: Tensor,
    second: Tensor | None,
    mixed: Tensor | None,
    procedural: Tensor | None,
    settings: Settings,
    levels: tuple[float, float],
) -> Tensor:
    """Crops as the settings change them: replaced, mixed, in a room, amplified, tilted.

    Args:
        power: (b, t, f) mel power; changed in place.
        changes: (b, 8) int64 random numbers.
        second, mixed: (k, t, f) log-mel crops that are added to those with the indices (k,).
        procedural: (p,) indices of the crops that procedural ones replace.
        settings: which changes are made, and how large they are.
        levels: mean and standard deviation of log-mel values.
    """
    s, (_, frames, n_mels) = settings, power.shape
    mix, gain, tilt, chosen, decay, damping, tail, _ = changes[:, :, None, None].unbind(1)
    band = torch.linspace(-1.0, 1.0, n_mels, device=power.device)
    if procedural is not None:
        bands = mel_bands(n_mels, s.model.sample_rate, power.device)
        power.index_copy_(0, procedural, sounds(changes[procedural, -1], frames, bands, *levels))
    if second is not None and mixed is not None:
        added = to_power(second.float()).mul_(to_factor(between(mix[mixed], *MIX_DB)))
        power.index_add_(0, mixed, added)
    if s.reverb:
        damped = 1 - (1 + band) / 2 * (1 - between(damping, *DAMPING))  # (b, 1, f)
        low, high = map(math.log, DECAY_SECONDS)
        tail_db = torch.where(between(chosen, 0, 1) < s.reverb, between(tail, *TAIL_DB), -math.inf)
        power = reverberate(power, between(decay, low, high).exp() * damped, tail_db)
    level = between(gain, -s.gain_db, s.gain_db)  # (b, 1, 1) dB
    if s.tilt_db:
        level = level + between(tilt, -s.tilt_db, s.tilt_db) * band
    return power.mul_(to_factor(level))


def reverberate(power: Tensor, seconds: Tensor, tail_db: Tensor) -> Tensor:
    """Add the reverberation of a diffuse room.

    Such a room's impulse response is noise under an exponential (Polack 1988), so the expected
    power is a convolution with that exponential. Its fluctuation, single echoes, and sounds before
    the crop are left out.

    Args:
        power: (b, t, f) mel power.
        seconds: (b, 1, f) time in which the reverberation of each band falls by 60 dB.
        tail_db: (b, 1, 1) energy of all reverberation relative to the direct sound.
    """
    frames = power.shape[1]
    decay = (-math.log(1e6) * MS_PER_FRAME / 1000 / seconds).exp()  # (b, 1, f), per frame
    tail = F.pad(power, (0, 0, 1, -1))  # begins a frame later
    shift = 1
    while shift < frames:  # each round doubles the number of earlier frames in the sum
        tail = tail + decay**shift * F.pad(tail, (0, 0, shift, -shift))
        shift *= 2
    return power + to_factor(tail_db) * (1 - decay) * tail


# ---------------------------------------------------------------------------------------------
# Procedural crops
# ---------------------------------------------------------------------------------------------
@functools.cache  # because copying them to a GPU would wait for it
def mel_bands(n_mels: int, sample_rate: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres and widths (f,) in Hz of the mel bands, with the blur of the front end's window."""
    bank = mel_filter_bank(n_mels, sample_rate)  # (bins, f)
    hertz = torch.linspace(0, sample_rate / 2, len(bank), dtype=bank.dtype)
    share = bank / bank.sum(0).clamp_min(1e-12)
    centre = hertz @ share
    variance = (hertz.square() @ share - centre.square()).clamp_min(0)
    width = (variance + WINDOW_HERTZ**2).sqrt()
    return centre.float().to(device), width.float().to(device)


def sounds(
    keys: Tensor, frames: int, bands: tuple[Tensor, Tensor], mean: float, std: float
) -> Tensor:
    """Mel power (k, t, f) of procedural sounds: voices over noise, all parameters at random.

    A voice is a harmonic sound with glide, vibrato and a pitch for each note, or a band of noise;
    notes are repeated and die away, and a resonance moves through the spectrum. Masked
    autoencoders learn from synthetic patterns alone (Ishikawa et al. 2025).

    Args:
        keys: (k,) int64 random integers, one for each crop.
        frames: length of a crop.
        bands: centres and widths of the mel bands.
        mean, std: statistics of the corpus, which the levels follow.
    """
    noise = -between(more_bits(keys, frames * len(bands[0])), 2.0**-24, 1).log()
    noise = noise.view(-1, frames, len(bands[0]))  # (k, t, f), exponentially distributed
    numbers = between(more_bits(keys ^ 1, 2 + 17 * VOICES), 0, 1)[..., None, None]  # (k, n, 1, 1)
    total = torch.zeros_like(noise)
    for voice in range(VOICES):
        total += _voice(numbers[:, 2 + 17 * voice :][:, :17], noise, *bands)
    total /= total.amax((1, 2), keepdim=True).clamp_min(1e-12)
    loudest, floor = mean + std * (0.5 + 2.5 * numbers[:, 0]), mean - 2.5 * std * numbers[:, 1]
    return total * loudest.exp() + noise * floor.exp()


def _voice(numbers: Tensor, noise: Tensor, centre: Tensor, width: Tensor) -> Tensor:
    """Mel power (k, t, f) of a voice from uniform numbers (k, 17, 1, 1)."""
    kind, level, begin, length = numbers[:, :4].unbind(1)
    rate, phase, drop, pitch, glide, depth, speed, jump = numbers[:, 4:12].unbind(1)
    slope, place, drift, breadth, height = numbers[:, 12:].unbind(1)
    seconds = torch.arange(noise.shape[1], device=noise.device)[:, None] * (MS_PER_FRAME / 1000)
    beats = phase + 0.3 * 50**rate * seconds  # (k, t, 1): notes since the start, 0.3 to 15 per s
    note = beats.floor()
    octaves = (2 * glide - 1) ** 3 * seconds + jump * (39.0 * (note + phase)).sin()
    octaves = octaves + 0.1 * depth**3 * (2 * math.pi * (3 + 5 * speed) * seconds).sin()
    hertz = 60 * 30**pitch * 2**octaves  # (k, t, 1)
    # A comb of harmonics, blurred by the width of the bands: a von Mises function of the phase.
    sharpness = (hertz / (2 * math.pi * width)).square()
    cycles = centre / hertz  # (k, t, f): 1 is the fundamental
    comb = (sharpness * ((2 * math.pi * cycles).cos() - 1)).exp() * (cycles > 0.5)
    sound = torch.where(kind < 0.6, comb, noise)
    band = torch.linspace(0, 1, len(centre), device=noise.device)
    resonance = ((band - place - (drift - 0.5) * seconds) / (0.03 + 0.3 * breadth)).square()
    timbre = 40 * height * (-resonance).exp() - 40 * slope * band  # dB
    envelope = -60 * drop**2 * (beats - note) - 30 * level  # dB
    start = 2.5 * begin - 1
    audible = (seconds >= start) & (seconds < start + 0.1 + 4 * length)
    return sound * to_factor(timbre + envelope) * audible
