"""Convert log-mel spectrograms to waveforms, with phases by Griffin and Lim (1984)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import LOG_EPS, MS_PER_FRAME, SAMPLE_RATE, WINDOW_MS
from ..extras import need
from ..log_mel import mel_filter_bank

MEL_ITERATIONS = 100
PHASE_ITERATIONS = 64


def to_waveform(log_mel: Tensor, seed: int = 0, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """A waveform whose log-mel spectrogram is close to the given one.

    Phases are estimated, and details within a mel band and below 50 Hz are lost. The result is for
    listening, not for measurements.

    Args:
        log_mel: (f, t) natural log of power as in `LogMel.log_mel`, not normalised.
        seed: random seed of the initial phases.
        sample_rate: sample rate of the waveform in Hz.

    Returns:
        (hop (t - 1),) float32, hop = 10 ms in samples, not clipped to [-1, 1]; all zero for
        one or two frames.
    """
    need("torchaudio", "visual", "waveforms made from spectrograms")
    from torchaudio.functional import griffinlim

    window, hop = WINDOW_MS * sample_rate // 1000, MS_PER_FRAME * sample_rate // 1000
    length = hop * (log_mel.shape[1] - 1)
    if length <= window // 2:  # the spectrogram of a waveform needs more samples
        return torch.zeros(max(length, hop))
    # The smallest value of the log-mel is the log of LOG_EPS, digital silence.
    mel = (log_mel.cpu().float().exp() - LOG_EPS).clamp(min=0)
    power = linear_power(mel, sample_rate=sample_rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return griffinlim(
            power,
            window=torch.hann_window(window),
            n_fft=window,
            hop_length=hop,
            win_length=window,
            power=2.0,
            n_iter=PHASE_ITERATIONS,
            momentum=0.99,
            length=length,
            rand_init=True,
        )


def linear_power(
    mel: Tensor, iterations: int = MEL_ITERATIONS, sample_rate: int = SAMPLE_RATE
) -> Tensor:
    """Power spectrogram with the given mel bands: (f, t) -> (1 + window // 2, t), non-negative.

    Non-negative least squares by multiplicative updates (Lee and Seung 2001). The unconstrained
    solution of torchaudio's InverseMelScale is wrong by a factor of e on average, because the
    lowest bands are nearly equal.
    """
    bands = mel_filter_bank(mel.shape[0], sample_rate).float().T  # (f, bins)
    gram, wanted = bands.T @ bands, bands.T @ mel
    power = wanted / (gram.sum(1, keepdim=True) + LOG_EPS)
    for _ in range(iterations):
        power = power * wanted / (gram @ power + 1e-20)
    return power
