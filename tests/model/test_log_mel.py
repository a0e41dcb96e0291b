"""LogMel against recorded numbers, an independent float64 computation, and its own slices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CLIPS, assert_matches, audio, golden
from torch.overrides import TorchFunctionMode

from hear_msm_mae.log_mel import SILENCE, LogMel, mean_std, mel_filter_bank

LMS = golden("lms")


@pytest.fixture(scope="module")
def frontend():
    return LogMel()


def in_float64(waveform: np.ndarray) -> np.ndarray:
    """Frame by frame in plain numpy: (n,) -> (80, t). The filter bank is the recorded one."""
    padded = np.pad(
        np.pad(waveform.astype(np.float64), (0, max(0, 400 - len(waveform)))), 200, "reflect"
    )
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    columns = []
    for frame in range(1 + len(waveform) // 160):
        segment = padded[160 * frame : 160 * frame + 400] * window
        power = np.abs(np.fft.rfft(segment)) ** 2
        columns.append(np.log(LMS["mel_basis"].astype(np.float64) @ power + 2.0**-23))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("tag", CLIPS)
def test_agrees_with_golden(tag, frontend):
    waveform = audio(tag)
    np.testing.assert_allclose(
        waveform.double().sum(1), LMS[f"audio_sum_{tag}"], rtol=1e-12, atol=1e-9
    )
    log_mel = frontend.log_mel(waveform)[:, None]
    assert_matches(log_mel, LMS, f"lms_{tag}", atol=1e-3, relative_l2=None)
    recorded = LMS.get(f"lms_{tag}", LMS.get(f"lms_{tag}__s37"))
    ours = log_mel.numpy() if f"lms_{tag}" in LMS else log_mel.numpy().reshape(-1)[::37]
    audible = recorded > -10
    np.testing.assert_allclose(ours[audible], recorded[audible], rtol=0, atol=1e-4)
    statistics = [log_mel.double().mean(), log_mel.double().std()]
    np.testing.assert_allclose(statistics, LMS[f"stats_{tag}"], rtol=1e-6)


def test_mel_basis_is_slaney():
    np.testing.assert_allclose(mel_filter_bank(80).T, LMS["mel_basis"], atol=1e-8)


@settings(max_examples=40)
@given(st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_any_length_agrees_with_float64(samples, seed):
    waveform = np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
    log_mel = LogMel().log_mel(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(log_mel, in_float64(waveform), atol=2e-4)


@settings(max_examples=60)
@given(st.integers(1, 5000), st.integers(-20, 50), st.integers(1, 30))
def test_range_is_a_slice_of_the_whole_with_silence_outside(samples, start, length):
    frontend = LogMel()
    waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    whole = torch.nn.functional.pad(frontend.log_mel(waveform), (20, 80), value=SILENCE)
    part = frontend.log_mel_range(waveform, start, start + length)
    torch.testing.assert_close(
        part, whole[..., start + 20 : start + 20 + length], rtol=0, atol=1e-4
    )


def test_silence_is_the_logarithm_of_epsilon(frontend):
    np.testing.assert_allclose(frontend.log_mel(torch.zeros(1, 1600)), np.log(2.0**-23), rtol=1e-6)


def test_normalises_with_the_given_statistics():
    waveform = audio(3200)
    frontend = LogMel(mean=-5.0, std=2.0)
    torch.testing.assert_close(frontend(waveform), (frontend.log_mel(waveform) + 5.0) / 2.0)


def test_float32_whatever_autocast_and_module_casts_say(device):
    waveform = audio(16000)
    expected = LogMel()(waveform)
    frontend = LogMel().to(device).to(torch.bfloat16)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        actual = frontend(waveform.to(device))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.cpu(), expected, rtol=0, atol=1e-3)


def test_gradient_reaches_the_waveform(frontend):
    waveform = audio(4000).requires_grad_()
    frontend(waveform).sum().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().sum() > 0


class OnMPS(torch.Tensor):
    """Stands for a tensor on a device without float64; `.cpu()` leaves the device."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_statistics_of_a_device_without_float64():
    values = torch.tensor([[1.0, 2.0], [4.0, 9.0]])
    found = mean_std([values.as_subclass(OnMPS)], shift=3.0)
    # mean 4, unbiased variance (9 + 4 + 0 + 25) / 3
    assert found == pytest.approx((4, (38 / 3) ** 0.5))


class NoFloat64Moves(TorchFunctionMode):
    """Refuses to move float64 tensors to a device, as to MPS."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.to and args[0].dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return function(*args, **(kwargs or {}))


def test_float64_waveform_is_rounded_before_it_is_moved(frontend):
    waveform = audio(3200)
    middle = (5, 10)  # frames that need no padding, which rounds too
    with NoFloat64Moves():
        actual = frontend.log_mel_range(waveform.double(), *middle)
    assert torch.equal(actual, frontend.log_mel_range(waveform, *middle))
