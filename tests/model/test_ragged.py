"""Clips of unequal lengths: the embeddings that each has alone."""

import pytest
import torch
from small_models import small_model

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, timeline
from hear_msm_mae.ragged import frames, scenes

LENGTHS = (90_000, 1, 2_559, 33_280, 33_281)


@pytest.fixture
def clips(device) -> list[torch.Tensor]:
    return [0.1 * torch.randn(n).to(device) for n in LENGTHS]


@pytest.fixture
def two_units_in_a_piece(monkeypatch):
    monkeypatch.setattr(timeline, "PIECE_FRAMES", 416)
    timeline.Timeline.layout.cache_clear()
    yield
    timeline.Timeline.layout.cache_clear()


@pytest.mark.parametrize("pooling", ["mean", "mean+std"])
@pytest.mark.usefixtures("two_units_in_a_piece")
def test_each_clip_as_if_alone(pooling, clips, device):
    model = small_model(scene_pooling=pooling).to(device)
    with torch.no_grad():
        found = scenes(model, clips)
        embeddings, timestamps = frames(model, clips)
    for i, clip in enumerate(clips):
        alone = get_scene_embeddings(clip[None], model)[0]
        torch.testing.assert_close(found[i], alone, rtol=0, atol=1e-5)
        expected, centres = get_timestamp_embeddings(clip[None], model)
        torch.testing.assert_close(embeddings[i], expected[0], rtol=0, atol=1e-5)
        assert torch.equal(timestamps[i], centres[0])


def test_gradients_reach_the_weights(clips, device):
    model = small_model().to(device)
    scenes(model, clips).square().sum().backward()
    assert model.encoder.patch_embed.weight.grad.abs().sum() > 0


def test_refusals():
    model = small_model()
    for clips in ([], [torch.zeros(10), torch.zeros(0)]):
        with pytest.raises(ValueError, match="at least one clip, and at least one sample in each"):
            scenes(model, clips)
    for embed in (scenes, frames):
        with pytest.raises(ValueError, match="load it with normalization='stored'"):
            embed(small_model(mode="paper"), [torch.zeros(1000)])
