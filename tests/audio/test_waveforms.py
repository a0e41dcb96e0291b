"""Recordings in memory: arrays, dictionaries and decoders, resampled as files are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from audio_files import sound, write

from hear_msm_mae.audio import read_audio
from hear_msm_mae.audio.waveforms import waveform_of


class Decoder:
    """Like torchcodec's AudioDecoder."""

    def __init__(self, data, sample_rate):
        self._samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self):
        return self._samples


@pytest.mark.parametrize("rate", [16000, 44100])
def test_all_kinds_give_what_the_file_gives(tmp_path, rate):
    samples = np.stack([sound(1.2, rate), sound(1.2, rate, seed=1)])  # (c, n)
    path = write(tmp_path / "a.wav", samples.T, rate, subtype="FLOAT")
    expected, right = read_audio(path), read_audio(path, channel="right")
    content = path.read_bytes()
    for item in (
        (samples, rate),
        (samples.astype(np.float64), float(rate)),
        (torch.from_numpy(samples), rate),
        {"array": samples, "sampling_rate": rate, "path": "x.wav"},
        {"path": None, "bytes": content},
        {"path": "a.wav", "bytes": content},
        {"path": str(path), "bytes": None},
        Decoder(torch.from_numpy(samples), rate),
        str(path),
        path,
    ):
        found = waveform_of(item)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(waveform_of(item, channel="right"), right, atol=1e-6)
    mono = waveform_of((samples[0], rate), sample_rate=8000)
    np.testing.assert_allclose(mono, read_audio(path, channel=0, sample_rate=8000), atol=1e-6)
    np.testing.assert_array_equal(waveform_of((samples[0][::-1], 16000)), samples[0][::-1])
    half = torch.from_numpy(samples).to(torch.bfloat16).requires_grad_()
    np.testing.assert_allclose(waveform_of((half, rate)), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (np.zeros(5, np.float32), TypeError, r"clip: expected \(samples, rate\).*got ndarray"),
        (None, TypeError, "got NoneType"),
        ((np.zeros(5, np.int16), 16000), TypeError, "floating point .* got int16"),
        (([0, 1], 16000), TypeError, "floating point .* got int64"),
        ((np.zeros(5, complex), 16000), TypeError, "got complex128"),
        ((np.zeros((5, 2)), 16000), ValueError, r"shape \(n,\) or \(channels, n\), got \(5, 2\)"),
        ((np.zeros((2, 3, 4)), 16000), ValueError, r"got \(2, 3, 4\)"),
        ((np.float32(0.5), 16000), ValueError, r"got \(\)"),
        ((np.zeros(0), 16000), ValueError, "clip: holds no audio samples"),
        ((np.zeros((2, 0)), 16000), ValueError, r"clip: .*got \(2, 0\)"),
        ((np.full(5, np.nan), 16000), ValueError, "clip: holds NaN or infinite samples"),
        ((np.zeros(5), 0), ValueError, "rate must be a whole number of Hz, from 100 on, got 0"),
        ((np.zeros(5), 0.5), ValueError, "rate must be .* got 0.5"),
        ((np.zeros(5), None), ValueError, "rate must be .* got None"),
        ((np.zeros(5), float("nan")), ValueError, "rate must be .* got nan"),
        ({"array": np.zeros(5)}, ValueError, '"sampling_rate" is missing'),
        ({"audio": 1}, ValueError, r"got the keys \['audio'\]"),
        ({"path": None, "bytes": b""}, ValueError, "clip: cannot be read as audio .*is empty"),
        ({"path": "b.wav", "bytes": b"no"}, ValueError, r"^b\.wav: cannot be read as audio"),
        ({"path": "gone.wav", "bytes": None}, FileNotFoundError, "no such file: gone.wav"),
    ],
)
def test_errors_name_what_is_wrong(item, error, message):
    with pytest.raises(error, match=message):
        waveform_of(item, name="clip")
