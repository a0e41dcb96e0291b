"""Fine-tuned files and files of audio and text: the audio encoder is found, the rest is named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pth_files import assert_same_model
from reference import signals, state_dict

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.checkpoints.foreign import load_any

GOLDEN = Path(__file__).parents[1] / "golden_m2d"

HEAD = {
    "head.norm.running_mean": torch.zeros(64),
    "head.norm.num_batches_tracked": torch.tensor(7),
    "head.mlp.weight": torch.full((527, 64), 1e6),
}
TEXT = {
    "text_encoder.embeddings.position_ids": torch.arange(512)[None],
    "text_encoder.embeddings.token_type.weight": torch.zeros(2, 64),
    "text_encoder.layer.0.norm.weight": torch.ones(64),
    "audio_proj.0.weight": torch.zeros(64, 64),
    "logit_scale": torch.tensor(2.66),
}
VISUAL = {
    "visual.patch_embed.proj.weight": torch.zeros(64, 3, 16, 16),
    "visual.norm.weight": torch.ones(64),
    "visual.blocks.0.mlp.fc1.weight": torch.zeros(256, 64),
}


@pytest.fixture
def encoder(reference_state):
    return reference_state(decoder=None)


def below(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "backbone.",
        "module.backbone.",
        "ar.runtime.backbone.",
        "module.ar.runtime.backbone.",
        "audio_encoder.",
        "model.audio_encoder.backbone.model.",
        "temporal.ar.blocks.0.",
    ],
)
@pytest.mark.parametrize("others", [{}, HEAD, TEXT, HEAD | TEXT | VISUAL], ids=len)
def test_the_encoder_is_found_below_any_prefix(encoder, save, prefix, others):
    assert_same_model(save({"model": below(prefix, encoder) | others}), encoder)


@pytest.mark.parametrize("name", ["norm_stats", "backbone.norm_stats", "module.ar.norm_stats"])
def test_statistics_anywhere(encoder, save, caplog, name):
    state = below("backbone.", encoder) | {name: torch.tensor([-6.5, 3.25])}
    config = load_any(save({"state_dict": state | HEAD})).config
    assert (config.norm_mean, config.norm_std) == (-6.5, 3.25)
    assert "norm_stats" not in caplog.text


def test_what_is_left_out_is_named(encoder, save, caplog):
    state = below("ar.runtime.backbone.", encoder) | below("ar.runtime.", HEAD) | TEXT
    with caplog.at_level(logging.WARNING):
        load_any(save({"model": state, "norm_stats": [-7.0, 4.0]}))
    (record,) = caplog.records
    assert record.message == (
        "only the audio encoder is read, from 'ar.runtime.backbone.'; left out: "
        "ar.runtime.head (tensors: 3), audio_proj (tensors: 1), logit_scale (tensors: 1), "
        "text_encoder (tensors: 3)"
    )


def test_a_long_note_is_cut(encoder, save, caplog):
    others = {f"extra_{i}.weight": torch.zeros(1) for i in range(20)}
    load_any(save({"model": encoder | others}))
    assert "extra_0 (tensors: 1)" in caplog.text
    assert "and 12 more" in caplog.text


def test_a_plain_file_needs_no_note(state, save, caplog):
    load_any(save({"model": below("module.", state), "norm_stats": [-7.0, 4.0]}))
    assert "left out" not in caplog.text


def test_the_decoder_comes_along(state, save, caplog):
    assert load_any(save({"model": below("backbone.", state) | HEAD})).has_decoder
    assert "head (tensors: 3)" in caplog.text


def test_a_module_that_is_registered_twice(encoder, save):
    twice = below("ar.runtime.backbone.", encoder) | below("backbone.", encoder)
    assert_same_model(save({"model": twice}), encoder)


@pytest.mark.parametrize("online", ["", "encoder.", "online_encoder."])
def test_a_target_is_left_out(encoder, save, online):
    target = {name: tensor + 1 for name, tensor in encoder.items()}
    both = below(online, encoder) | below("target_encoder.", target) | below("target_", target)
    assert_same_model(save({"model": both}), encoder)


def test_several_encoders_are_refused(encoder, save):
    other = encoder | {"norm.bias": encoder["norm.bias"] + 1}
    path = save({"model": below("student.", encoder) | below("teacher.", other)})
    with pytest.raises(ValueError, match=r"several encoders, below 'student\.' and 'teacher\.'"):
        load_any(path)


def test_what_changes_the_encoder_is_refused(encoder, save):
    state = below("backbone.", encoder | {"register_tokens": torch.zeros(1, 4, 64)})
    with pytest.raises(ValueError, match=r"encoder\.register_tokens should be absent"):
        load_any(save({"model": state | HEAD}))


def test_an_encoder_for_pictures_alone_is_refused(save):
    with pytest.raises(ValueError, match=r"checkpoint\.pth"):
        load_any(save({"model": VISUAL}))


def test_a_fine_tuned_m2d_file_agrees_with_golden(tmp_path, caplog):
    """The recorded model as a fine-tuned 32 kHz file: only the names differ."""
    name = "m2d_vit_base-80x608p16x16p32k"
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = dict(file)
    state = below("module.ar.runtime.backbone.", state_dict(arrays)) | HEAD | TEXT
    state["module.ar.runtime.norm_stats"] = torch.from_numpy(arrays["norm_stats"])
    path = tmp_path / f"{name}-230101_FT" / "weights_ep60.pth"
    path.parent.mkdir()
    torch.save({"model": state, "optimizer": {"step": 3}}, path)
    model = load_model(path, mode="m2d")
    assert model.sample_rate == 32_000
    assert "no norm_stats" not in caplog.text
    waveforms = signals(16_000, 32_000)
    frames, _ = get_timestamp_embeddings(waveforms, model)
    for found, expected in (
        (get_scene_embeddings(waveforms, model), arrays["scene_0p50"]),
        (frames.reshape(-1)[::37], arrays["encode_0p50__s37"]),
    ):
        assert np.linalg.norm(found.numpy() - expected) < 1e-5 * np.linalg.norm(expected)
