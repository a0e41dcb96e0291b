"""Guarantees of the default mode, on small random models and on the bundled one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import audio
from small_models import SIZES, small_model

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.log_mel import SILENCE, LogMel


def noise(clips: int, samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clips, samples, generator=generator) * 0.1


def both(waveforms, model):
    return get_scene_embeddings(waveforms, model), *get_timestamp_embeddings(waveforms, model)


@pytest.fixture(scope="module")
def bundled():
    return load_model()


@settings(max_examples=10)
@given(st.integers(1, 5 * 16000), st.integers(2, 70), st.floats(-60, 20), st.data())
def test_embedding_is_the_same_alone_and_with_mates_of_any_loudness(samples, clips, db, data):
    model = small_model()
    batch = noise(clips, samples)
    own = data.draw(st.integers(0, clips - 1))
    mates = batch * 10 ** (db / 20)
    mates[own] = batch[own]
    scene, frames, times = both(mates, model)
    alone_scene, alone_frames, alone_times = both(batch[own : own + 1], model)
    torch.testing.assert_close(scene[own], alone_scene[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(frames[own], alone_frames[0], rtol=0, atol=1e-5)
    assert torch.equal(times[own], alone_times[0])


@pytest.mark.parametrize("seconds", [0.3, 2.08, 4.5])
def test_bundled_model_does_not_see_batch_mates(seconds, bundled):
    """Its scenes are means and standard deviations."""
    clips = audio(int(seconds * 16000))
    batch = torch.stack([30 * clips[0], clips[1], torch.zeros_like(clips[0])])
    for ours, alone in zip(both(batch, bundled), both(batch[1:2], bundled), strict=True):
        torch.testing.assert_close(ours[1], alone[0], rtol=0, atol=1e-5)


def test_what_follows_a_unit_does_not_change_it():
    """Two clips with the same first unit have the same embeddings there."""
    model = small_model()
    long = audio(6 * 16000)
    samples = (208 + 16) * 160  # the units of shifted copies end up to a patch later
    short = long[:, :samples]
    frames, times = get_timestamp_embeddings(short, model)
    longer, _ = get_timestamp_embeddings(long, model)
    inside = times[0] <= 2080 - 160
    torch.testing.assert_close(frames[:, inside], longer[:, : inside.sum()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("hop", [10, 20, 40, 80, 160])
@pytest.mark.parametrize("at_ms", [300, 1000, 2080, 2500])
def test_timestamps_point_at_what_the_embedding_saw(hop, at_ms):
    """Without blocks an embedding depends on its own patch alone: a click shows where that is."""
    config = ModelConfig(**(SIZES | {"depth": 1}))
    model = small_model(config, timestamp_hop_ms=hop)
    model.encoder.blocks = torch.nn.ModuleList([torch.nn.Identity()])
    silence = torch.zeros(1, 3 * 16000)
    click = silence.clone()
    click[0, at_ms * 16] = 0.9
    quiet, times = get_timestamp_embeddings(silence, model)
    clicked, _ = get_timestamp_embeddings(click, model)
    # Positions are the same in both, so any difference comes from the click.
    seen = ((clicked - quiet).abs().amax(-1) > 1e-4)[0]
    distance = (times[0] - at_ms).abs()
    # A patch spans its centre +- 75 ms, and each frame a window of +- 12.5 ms.
    assert seen[distance <= 75].all()
    assert not seen[distance > 75 + 12.5].any()
    assert seen.any()


def test_fine_hop_contains_the_coarse_one():
    waveforms = noise(2, 70000)
    coarse, coarse_times = get_timestamp_embeddings(waveforms, small_model(timestamp_hop_ms=160))
    for hop in (10, 20, 40, 80):
        fine, times = get_timestamp_embeddings(waveforms, small_model(timestamp_hop_ms=hop))
        index = [times[0].tolist().index(t) for t in coarse_times[0].tolist()]
        torch.testing.assert_close(fine[:, index], coarse, rtol=0, atol=1e-5)


def test_scene_is_the_mean_of_independently_encoded_units():
    """Front end, cutting, last unit at its own length and the mean, written out by hand."""
    model = small_model()
    waveforms = noise(2, 5 * 16000 + 777)
    log_mel = LogMel().log_mel(waveforms)
    frames = log_mel.shape[-1]
    padded = torch.nn.functional.pad(log_mel, (0, -frames % 16), value=SILENCE)
    normalised = (padded + 7.1) / 4.2
    parts = []
    with torch.no_grad():
        for unit in normalised.split(208, dim=-1):
            parts.append(model.encoder.frame_embeddings(model.encoder(unit)))
    per_patch = torch.cat(parts, 1)
    real = torch.tensor([min(16, frames - start) for start in range(0, frames, 16)])
    expected = (per_patch * real[None, :, None]).sum(1) / frames
    torch.testing.assert_close(get_scene_embeddings(waveforms, model), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 399, 400, 401, 560, 561, 16000, 33280, 66560])
def test_silence_and_short_clips_are_finite(samples, bundled):
    model = bundled if samples in (1, 560) else small_model()
    for waveforms in (torch.zeros(2, samples), noise(2, samples)):
        scene, frames, times = both(waveforms, model)
        assert scene.shape == (2, model.scene_embedding_size)
        assert frames.shape == (2, times.shape[1], model.timestamp_embedding_size)
        assert times.shape[0] == 2
        assert all(x.isfinite().all() and x.dtype == torch.float32 for x in (scene, frames, times))


def test_silence_is_finite_under_batch_statistics():
    for mode in ("default", "paper"):
        model = small_model(mode=mode, normalization="batch")
        assert get_scene_embeddings(torch.zeros(2, 16000), model).isfinite().all()


def test_batch_statistics_are_those_of_the_whole_batch():
    waveforms = noise(3, 40000) * torch.tensor([[0.1], [1.0], [3.0]])
    log_mel = LogMel().log_mel(waveforms)
    pair = [log_mel.double().mean().item(), log_mel.double().std().item()]
    by_batch = get_scene_embeddings(waveforms, small_model(normalization="batch"))
    by_pair = get_scene_embeddings(waveforms, small_model(normalization=pair))
    torch.testing.assert_close(by_batch, by_pair, rtol=0, atol=1e-5)
    stored = get_scene_embeddings(waveforms, small_model())
    assert (stored - by_batch).abs().max() > 1e-3


def test_layers_are_concatenated_in_the_given_order():
    waveforms = noise(2, 50000)
    first = get_scene_embeddings(waveforms, small_model(layer=0))
    last = get_scene_embeddings(waveforms, small_model(layer="last"))
    model = small_model(layer=[-1, 0])
    assert model.scene_embedding_size == model.timestamp_embedding_size == 2 * 5 * 48
    assert get_timestamp_embeddings(waveforms, model)[0].shape[2] == 2 * 5 * 48
    torch.testing.assert_close(
        get_scene_embeddings(waveforms, model), torch.cat([last, first], 1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("layer", [0, [1, 0]])
def test_blocks_above_the_highest_layer_are_not_run(layer):
    model = small_model(ModelConfig(width=48, depth=4, heads=3), layer=layer)
    for block in model.encoder.blocks[2:]:
        block.register_forward_hook(lambda *_: pytest.fail("a block that nobody asked for ran"))
    assert get_scene_embeddings(noise(1, 20000), model).isfinite().all()


def test_gradients_reach_the_encoder_in_both_paths(device):
    model = small_model().to(device)
    waveforms = noise(2, 40000).to(device)
    for output in (model(waveforms), model.timestamp_embeddings(waveforms)[0]):
        model.zero_grad()
        output.square().mean().backward()
        missing = [name for name, p in model.encoder.named_parameters() if p.grad is None]
        assert not missing


def test_attributes_are_python_ints_and_model_is_in_eval_mode(bundled):
    for name in ("sample_rate", "scene_embedding_size", "timestamp_embedding_size"):
        assert type(getattr(bundled, name)) is int
    assert bundled.sample_rate == 16000
    assert not bundled.training


def test_audio_moves_to_the_model(device):
    model = small_model().to(device)
    expected = both(noise(2, 30000), small_model())
    for ours, theirs in zip(both(noise(2, 30000), model), expected, strict=True):
        assert ours.device.type == device.type
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_close_to_float32(bundled, device):
    waveforms = audio(16000)
    exact = get_scene_embeddings(waveforms, bundled)
    model = load_model(precision="bfloat16").to(device)
    assert model.encoder.patch_embed.weight.dtype == torch.bfloat16
    rough = get_scene_embeddings(waveforms, model)
    assert (rough.dtype, rough.device.type) == (torch.float32, device.type)
    cosine = torch.nn.functional.cosine_similarity(exact, rough.cpu())
    assert cosine.min() > 0.995
    assert not torch.equal(exact, rough.cpu())


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_scene_is_a_float32_mean_under_autocast(mode):
    """The encoder runs in bfloat16; the mean over what it returns does not."""
    model = small_model(mode=mode, **({"timestamp_hop_ms": 160} if mode == "default" else {}))
    waveforms = noise(2, 3 * 16000)  # 301 frames: 18 whole patches and one with 13
    with torch.autocast("cpu", torch.bfloat16):
        scene, frames, _ = both(waveforms, model)
    weights = torch.tensor([16.0] * 18 + [13 if mode == "default" else 16], dtype=torch.float64)
    expected = (frames.double() * weights[:, None]).sum(1) / weights.sum()
    assert scene.dtype == torch.float32
    torch.testing.assert_close(scene.double(), expected, rtol=0, atol=1e-6)
    assert (scene - get_scene_embeddings(waveforms, model)).abs().max() > 1e-4  # bfloat16 it was


def test_other_patch_sizes_have_their_native_timestamps():
    for patch_mels, patch_frames, hop in ((16, 4, 40), (80, 2, 20), (8, 16, 40), (16, 8, 40)):
        config = ModelConfig(**SIZES, patch_mels=patch_mels, patch_frames=patch_frames)
        frames, times = get_timestamp_embeddings(noise(1, 48000), small_model(config))
        np.testing.assert_array_equal(np.diff(times[0]), hop)
        assert frames.shape[-1] == 80 // patch_mels * 48
