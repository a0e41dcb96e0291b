"""Step 2: waveform -> normalised log-mel spectrogram, on the device of the model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import (
    DEFAULT_NORM_MEAN,
    DEFAULT_NORM_STD,
    F_MIN,
    LOG_EPS,
    MS_PER_FRAME,
    SAMPLE_RATE,
    WINDOW_MS,
)

# Frames that a CPU transforms at once; so few stay in its cache. Other devices transform all.
_CPU_FRAMES = 512

SILENCE = math.log(LOG_EPS)  # log-mel value of digital silence
MIN_STD = 1e-6  # keeps constant input finite when it is normalised with its batch statistics


class LogMel(nn.Module):
    """Waveform to normalised log-mel spectrogram, always in float32, also under autocast.

    Short-time Fourier transform with 25 ms periodic Hann windows every 10 ms, centred, with
    reflect padding; power; Slaney mel bands from 50 to 8000 Hz; natural log of
    (power + 2**-23); (x - mean) / std. Clips shorter than a window are padded with silence.

    Args:
        n_mels: number of mel bands.
        mean, std: statistics of the log-mel values, stored as buffers.
        sample_rate: sample rate of the waveforms in Hz; the bands reach up to half of it.

    Shape:
        - input: (b, n) float32, 16 kHz, b clips of n >= 1 samples
        - output: (b, f, t) float32, f mel bands, t = 1 + n // 160 frames

    >>> LogMel()(torch.zeros(2, 16000)).shape
    torch.Size([2, 80, 101])
    """

    window: Tensor
    mel_basis: Tensor
    norm_mean: Tensor
    norm_std: Tensor

    def __init__(
        self,
        n_mels: int = 80,
        mean: float = DEFAULT_NORM_MEAN,
        std: float = DEFAULT_NORM_STD,
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.window_length = WINDOW_MS * sample_rate // 1000
        self.hop_length = MS_PER_FRAME * sample_rate // 1000
        window = torch.hann_window(self.window_length, periodic=True, dtype=torch.float64)
        # The configuration determines these, so they are not stored with the weights.
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer(
            "mel_basis", mel_filter_bank(n_mels, sample_rate).float(), persistent=False
        )
        for name, value in (("norm_mean", mean), ("norm_std", std)):
            scalar = torch.tensor(float(value), dtype=torch.float32)
            self.register_buffer(name, scalar, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> LogMel:
        """Follow moves to a device but stay in float32, also after model.bfloat16()."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def forward(
        self,
        waveform: Tensor,
        start: int = 0,
        stop: int | None = None,
        statistics: tuple[float, float] | None = None,
    ) -> Tensor:
        """Normalised log-mel spectrogram of a clip, or of a range of its frames.

        Args:
            waveform: (b, n).
            start, stop: range of frames, by default all; see `log_mel_range`.
            statistics: mean and standard deviation for the normalisation; by default the stored
                ones.

        Returns:
            (b, f, stop - start).
        """
        stop = self.num_frames(waveform.shape[-1]) if stop is None else stop
        return self.normalize(self.log_mel_range(waveform, start, stop), statistics)

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform of so many samples."""
        return 1 + samples // self.hop_length

    def normalize(self, log_mel: Tensor, statistics: tuple[float, float] | None = None) -> Tensor:
        """(x - mean) / std, by default with the stored statistics."""
        mean, std = statistics or (self.norm_mean, self.norm_std)
        return (log_mel - mean) / std

    def log_mel(self, waveform: Tensor) -> Tensor:
        """(b, n) -> (b, f, t), before normalisation."""
        return self.log_mel_range(waveform, 0, self.num_frames(waveform.shape[-1]))

    def log_mel_range(self, waveform: Tensor, start: int, stop: int) -> Tensor:
        """Frames start..stop of the clip's spectrogram; frames outside the clip are silence.

        Shape:
            - waveform: (b, n)
            - output: (b, f, stop - start), not normalised
        """
        first, last = max(start, 0), min(stop, self.num_frames(waveform.shape[-1]))
        device = self.window.device
        if first >= last:
            shape = (waveform.shape[0], self.n_mels, stop - start)
            return torch.full(shape, SILENCE, dtype=torch.float32, device=device)
        with torch.autocast(device.type, enabled=False):
            samples = waveform.float().to(device)
            missing = self.window_length - samples.shape[-1]
            if missing > 0:  # a reflection needs more samples than it reflects
                samples = F.pad(samples, (0, missing))
            half = self.window_length // 2
            samples = F.pad(samples, (half, half), mode="reflect")
            # In float32, bins beside a strong tone would be off by more than 1e-4. In small chunks
            # float64 is as fast on a CPU as float32 at once. MPS has no float64.
            samples = samples if device.type == "mps" else samples.double()
            frames = samples.unfold(-1, self.window_length, self.hop_length)  # (b, t, w)
            at_once = _CPU_FRAMES // len(waveform) if device.type == "cpu" else last - first
            chunks = frames[:, first:last].split(max(1, at_once), dim=1)
            log_mel = torch.cat([self._log_mel_of_frames(x) for x in chunks], dim=1)
        # The mel bands of a frame are contiguous, because the encoder cuts patches from frames.
        log_mel = F.pad(log_mel, (0, 0, first - start, stop - last), value=SILENCE)
        return log_mel.transpose(1, 2)

    def _log_mel_of_frames(self, frames: Tensor) -> Tensor:
        """(b, t, w) -> (b, t, f)."""
        spectrum = torch.fft.rfft(frames * self.window.to(frames.dtype))  # (b, t, bins)
        squares = torch.view_as_real(spectrum).float().square()  # (b, t, bins, 2)
        power = squares[..., 0] + squares[..., 1]
        return (power @ self.mel_basis + LOG_EPS).log()

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        return f"n_mels={self.n_mels}, mean={self.norm_mean:.4f}, std={self.norm_std:.4f}"


def mean_std(parts: Iterable[Tensor], shift: float = 0.0) -> tuple[float, float]:
    """Mean and unbiased standard deviation of all values of several tensors.

    Args:
        parts: tensors of any shape.
        shift: a value near the mean, which keeps the sum of squares small.
    """
    total, squares, count = 0.0, 0.0, 0
    for part in parts:
        values = part.detach().cpu().double() - shift  # in this order: MPS has no float64
        total += values.sum().item()
        squares += values.square().sum().item()
        count += values.numel()
    variance = (squares - total**2 / count) / max(count - 1, 1)
    return shift + total / count, max(math.sqrt(max(variance, 0.0)), MIN_STD)


def mel_filter_bank(n_mels: int, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Triangular mel filters, Slaney scale and Slaney area normalisation.

    The scale is linear below 1000 Hz (3 mels per 200 Hz) and logarithmic above (27 mels per factor
    of 6.4), as in Slaney's Auditory Toolbox (1998).

    Shape:
        - output: (1 + window // 2, n_mels) float64, FFT bins x mel bands, from 50 Hz to half the
          sample rate
    """
    knee, step = 15.0, math.log(6.4) / 27  # mels at 1000 Hz; log of frequency per mel above

    def to_mel(hertz: float) -> float:
        return 3 * hertz / 200 if hertz < 1000 else knee + math.log(hertz / 1000) / step

    mels = torch.linspace(to_mel(F_MIN), to_mel(sample_rate / 2), n_mels + 2, dtype=torch.float64)
    hertz = torch.where(mels < knee, 200 * mels / 3, 1000 * torch.exp(step * (mels - knee)))
    count = 1 + WINDOW_MS * sample_rate // 2000
    bins = torch.linspace(0, sample_rate / 2, count, dtype=torch.float64)
    left, centre, right = hertz[:-2], hertz[1:-1], hertz[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)
