"""One channel of several: the mean, one of them, and a word where the mean is silent."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from audio_files import sound, write

from hear_msm_mae.audio import count_channels, read_audio, stream_audio


@pytest.fixture
def three(tmp_path):
    samples = np.stack([sound(1, seed=seed) for seed in range(3)], 1)
    return write(tmp_path / "three.wav", samples, subtype="FLOAT"), samples


def test_one_of_the_channels(three):
    path, samples = three
    assert count_channels(path) == 3
    np.testing.assert_allclose(read_audio(path), samples.mean(1), atol=1e-6)
    for channel, index in (("left", 0), ("right", 1), (0, 0), (2, 2), ("2", 2)):
        np.testing.assert_array_equal(read_audio(path, channel=channel), samples[:, index])
    (block,) = stream_audio(path, 5, channel=2)
    np.testing.assert_array_equal(block, samples[:, 2])


@pytest.mark.parametrize("channel", [3, "3", -1, "centre", "each", "", True, "²"])
def test_channels_that_are_not_there(three, channel):
    path, _ = three
    message = (
        "three.wav: there is no channel 3; it has 3" if channel in (3, "3") else "channel must"
    )
    with pytest.raises(ValueError, match=message):
        read_audio(path, channel=channel)


def test_mono_has_a_left_channel_only(tmp_path):
    path = write(tmp_path / "mono.wav", sound(1))
    np.testing.assert_array_equal(read_audio(path, channel="left"), read_audio(path))
    with pytest.raises(ValueError, match=r"mono\.wav: there is no channel 1; it has 1"):
        read_audio(path, channel="right")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, -1, True),
        (1, -0.99, True),
        (1, -0.9, False),
        (1, 0, False),
        (1, 1, False),
        (1e-4, -1e-4, False),
    ],
)
def test_channels_in_opposite_phase(tmp_path, caplog, left, right, expected):
    caplog.set_level(logging.WARNING)
    samples = sound(2)
    frames = np.stack([left * samples, right * samples], 1)
    path = write(tmp_path / "anti.wav", frames, subtype="FLOAT")
    read_audio(path, 0.5, 1.5)
    assert [text for text in caplog.messages if "cancel each other" in text] == caplog.messages
    assert len(caplog.messages) == expected
    if expected:
        assert "anti.wav: its channels" in caplog.messages[0]
        assert "--channel left" in caplog.messages[0]
        read_audio(path, channel="left")
        assert len(caplog.messages) == 1


def test_noise_in_two_channels_does_not_cancel(tmp_path, caplog):
    frames = np.random.default_rng(0).normal(0, 0.2, (32000, 2)).astype(np.float32)
    read_audio(write(tmp_path / "noise.wav", frames))
    assert caplog.messages == []
