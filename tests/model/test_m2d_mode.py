"""The M2D runtime, through the path users take: a .pth in a folder with the model's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from reference import signals, state_dict

from hear_msm_mae import (
    embed_files,
    get_scene_embeddings,
    get_timestamp_embeddings,
    load_model,
)
from hear_msm_mae.model import HearModel

GOLDEN = Path(__file__).parents[1] / "golden_m2d"
RATES = {"m2d_vit_base-80x608p16x16": 16_000, "m2d_vit_base-80x608p16x16p32k": 32_000}
SECONDS = {"0p50": 0.5, "1p07": 1.07, "2p08": 2.08, "4p00": 4.0, "10p0": 10.0}

Golden = tuple[HearModel, dict[str, np.ndarray], int, Path]


@pytest.fixture(scope="module", params=RATES)
def golden(request, tmp_path_factory) -> Golden:
    """(model in m2d mode, recorded arrays, rate, file)."""
    with np.load(GOLDEN / f"{request.param}.npz") as file:
        arrays = dict(file)
    path = tmp_path_factory.mktemp("m2d") / request.param / "checkpoint-300.pth"
    path.parent.mkdir()
    state = state_dict(arrays) | {"norm_stats": torch.from_numpy(arrays["norm_stats"])}
    torch.save({"model": state}, path)
    return load_model(path, mode="m2d"), arrays, RATES[request.param], path


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    difference = np.linalg.norm(actual.double().numpy() - expected.astype(np.float64))
    assert difference < 1e-5 * np.linalg.norm(expected.astype(np.float64))


@pytest.mark.parametrize(
    "tag", [pytest.param(t, marks=pytest.mark.slow) if t == "10p0" else t for t in SECONDS]
)
def test_embeddings_and_timestamps_agree_with_golden(tag, golden):
    model, arrays, rate, _ = golden
    assert model.sample_rate == rate
    waveforms = signals(int(SECONDS[tag] * rate), rate)
    log_mel = model.frontend.log_mel(waveforms)[:, None]
    recorded = arrays[f"lms_{tag}__s37"]
    np.testing.assert_allclose(log_mel.reshape(-1)[::37], recorded, rtol=0, atol=1e-3)
    frames, times = get_timestamp_embeddings(waveforms, model)
    assert tuple(frames.shape) == tuple(arrays[f"encode_{tag}__shape"])
    close(frames.reshape(-1)[::37], arrays[f"encode_{tag}__s37"])
    close(get_scene_embeddings(waveforms, model), arrays[f"scene_{tag}"])
    for row in times:
        np.testing.assert_allclose(row, arrays[f"timestamps_{tag}"], rtol=0, atol=1e-3)


def test_default_mode_keeps_its_guarantees(golden):
    """Centred timestamps 40 ms apart at any rate, and no influence of batch mates."""
    _, _, rate, path = golden
    model = load_model(path)
    waveforms = signals(rate, rate)
    frames, times = get_timestamp_embeddings(waveforms, model)
    assert times[0, :3].tolist() == [35, 75, 115]
    alone, _ = get_timestamp_embeddings(waveforms[1:2], model)
    torch.testing.assert_close(frames[1:2], alone, rtol=0, atol=1e-5)


def test_files_are_resampled_to_the_rate_of_the_weights(golden, tmp_path):
    _, _, rate, path = golden
    model = load_model(path)
    waveform = signals(3 * rate, rate)[1].numpy()
    soundfile.write(tmp_path / "a.wav", waveform, rate, subtype="FLOAT")
    (record,) = embed_files(tmp_path / "a.wav", model, timestamps=True)
    expected, times = get_timestamp_embeddings(waveform[None], model)
    assert record.end == 3
    np.testing.assert_allclose(record.timestamps_ms, times[0])
    np.testing.assert_allclose(record.embedding, expected[0], atol=1e-5)
