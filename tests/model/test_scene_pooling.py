"""Scene embeddings with the spread over time: closed forms, pieces, batches, gradients."""

import numpy as np
import pytest
import torch
from small_models import small_model

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model, timeline
from hear_msm_mae.config import ModelConfig


def noise(clips: int, samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clips, samples, generator=generator) * 0.1


def frame_embeddings(waveforms: torch.Tensor) -> torch.Tensor:
    """Those of the patches that scenes are made of: the published runtime's timestamps."""
    model = small_model(mode="paper", normalization="stored")
    return get_timestamp_embeddings(waveforms, model)[0].double()


def test_mean_and_standard_deviation_over_time():
    waveforms = noise(3, (208 - 1) * 160)  # exactly a unit: no padding in any mode
    frames = frame_embeddings(waveforms)
    expected = torch.cat([frames.mean(1), frames.std(1, correction=0)], dim=1)
    model = small_model(scene_pooling="mean+std")
    scene = get_scene_embeddings(waveforms, model)
    assert scene.dtype == torch.float32
    assert model.scene_embedding_size == scene.shape[1] == 2 * model.timestamp_embedding_size
    torch.testing.assert_close(scene.double(), expected, rtol=0, atol=1e-5)
    mean = get_scene_embeddings(waveforms, small_model())
    assert torch.equal(scene[:, : mean.shape[1]], mean)


def test_a_last_patch_counts_by_the_part_that_exists():
    """Weighted alike in mean and standard deviation: 18 whole patches, and 13 of 16 frames."""
    waveforms = noise(2, 300 * 160)
    weights = np.array([16.0] * 18 + [13])
    model = small_model(scene_pooling="mean+std", timestamp_hop_ms=160)
    with torch.no_grad():
        log_mel = model.frontend(waveforms, 0, 19 * 16)
        units = [model.encoder(unit) for unit in log_mel.split(208, dim=2)]
        frames = torch.cat([model.encoder.frame_embeddings(x) for x in units], dim=1).numpy()
    for scene, values in zip(get_scene_embeddings(waveforms, model).numpy(), frames, strict=True):
        mean = np.average(values, axis=0, weights=weights)
        variance = np.average((values - mean) ** 2, axis=0, weights=weights)
        np.testing.assert_allclose(scene, np.concatenate([mean, variance**0.5]), atol=1e-5)


@pytest.mark.parametrize("samples", [1, 800, 2559])
def test_a_clip_of_one_patch_has_no_spread(samples):
    model = small_model(scene_pooling="mean+std")
    scene = get_scene_embeddings(noise(2, samples), model)
    assert torch.equal(scene[:, model.timestamp_embedding_size :], torch.zeros(2, 240))
    assert scene.isfinite().all()


@pytest.mark.parametrize("pooling", ["mean", "mean+std"])
def test_the_sums_of_pieces_add_up(pooling, monkeypatch):
    waveforms = noise(2, 20 * 16000 + 77)
    model = small_model(scene_pooling=pooling)
    whole = get_scene_embeddings(waveforms, model)
    monkeypatch.setattr(timeline, "PIECE_FRAMES", 416)  # two units
    timeline.Timeline.layout.cache_clear()
    assert model.timeline(False).count_pieces(waveforms.shape[1]) == 5
    try:
        pieces = get_scene_embeddings(waveforms, model)
    finally:
        timeline.Timeline.layout.cache_clear()
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)


def test_gradients_are_finite_where_there_is_no_spread():
    model = small_model(scene_pooling="mean+std")
    for samples in (800, 40000):
        model.zero_grad()
        model(noise(2, samples)).square().sum().backward()
        gradients = [p.grad for p in model.encoder.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_who_chooses_the_pooling():
    sizes = {"width": 48, "depth": 2, "heads": 3}
    spread = ModelConfig(**sizes, scene_pooling="mean+std")
    assert small_model(spread).options.scene_pooling == "mean+std"
    assert small_model(spread, scene_pooling="mean").options.scene_pooling == "mean"
    assert small_model(spread, mode="paper").options.scene_pooling == "mean"
    with pytest.raises(ValueError, match=r"scene_pooling must be one of \['mean'\]"):
        small_model(spread, mode="paper", scene_pooling="mean+std")
    with pytest.raises(ValueError, match=r"scene_pooling must be one of \['mean', 'mean\+std'\]"):
        load_model(scene_pooling="max")
