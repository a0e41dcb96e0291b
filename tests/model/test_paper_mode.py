"""The published runtime, through the path users take: .pth -> convert -> load in paper mode."""

import pytest
import torch
from reference import CLIPS, assert_matches, audio

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model


# Ten seconds are five units and the slowest; what several units bring, four seconds (two) show too.
@pytest.mark.parametrize(
    "tag", [pytest.param(t, marks=pytest.mark.slow) if t == "10p0" else t for t in CLIPS]
)
def test_embeddings_and_timestamps_agree_with_golden(tag, reference_weights):
    path, arrays = reference_weights
    model = load_model(path, mode="paper")
    waveforms = audio(tag)
    frames, times = get_timestamp_embeddings(waveforms, model)
    assert_matches(frames, arrays, f"encode_{tag}")
    assert_matches(get_scene_embeddings(waveforms, model), arrays, f"scene_{tag}")
    assert times.dtype == torch.float32
    for row in times:
        assert_matches(row, arrays, f"timestamps_{tag}", atol=1e-3)


@pytest.mark.parametrize("tag", ["0p50", "4p00"])
def test_all_layers_agree_with_golden(tag, reference_weights):
    path, arrays = reference_weights
    model = load_model(path, mode="paper", layer=list(range(12)))
    frames, _ = get_timestamp_embeddings(audio(tag), model)  # (b, t, 12 f d)
    layers = frames.unflatten(-1, (12, -1)).permute(2, 0, 1, 3)
    assert_matches(layers, arrays, f"layers_{tag}")


def test_default_mode_equals_the_published_units_where_no_padding_is_needed(reference_weights):
    """A clip of exactly one unit of frames: same units, so only timestamps differ."""
    path, _ = reference_weights
    paper = load_model(path, mode="paper")
    default = load_model(path, normalization="batch")
    waveforms = audio((paper.config.unit_frames - 1) * 160)
    torch.testing.assert_close(
        get_scene_embeddings(waveforms, default),
        get_scene_embeddings(waveforms, paper),
        rtol=0,
        atol=1e-5,
    )
