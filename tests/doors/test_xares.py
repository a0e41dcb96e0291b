"""The encoder for X-ARES: found and accepted by its own functions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hear_msm_mae import get_timestamp_embeddings, load_model

pytest.importorskip("xares", reason="pip install --no-deps xares loguru")
ENCODER = Path(__file__).parents[2] / "benchmarks" / "xares_encoder.py"


@pytest.fixture
def encoder(monkeypatch, tiny_file):
    from xares.utils import attr_from_py_path

    # X-ARES imports the file by its path relative to the working directory.
    monkeypatch.chdir(ENCODER.parents[1])
    monkeypatch.setenv("MSM_MAE_WEIGHTS", str(tiny_file))
    return attr_from_py_path("benchmarks/xares_encoder.py", endswith="Encoder")()


def test_it_is_accepted(encoder):
    from xares.audio_encoder_checker import check_audio_encoder

    assert check_audio_encoder(encoder)


def test_frame_embeddings(encoder, tiny_file):
    audio = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 50_000)) * 0.1).float()
    with torch.inference_mode():  # as X-ARES does
        found = encoder(audio)
        assert torch.equal(encoder(audio[1])[0], found[1])
    expected, timestamps = get_timestamp_embeddings(audio, load_model(tiny_file))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert timestamps.diff().unique().tolist() == [encoder.hop_size_in_ms]
    assert (encoder.sampling_rate, encoder.output_dim) == (16_000, expected.shape[2])
