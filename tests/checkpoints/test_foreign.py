"""Conversion of `.pth` checkpoints of the reference layout: each variant computes the same."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from pth_files import ARGS, assert_same_model, plain_tokens
from torch import Tensor

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints.foreign import load_any
from hear_msm_mae.checkpoints.native import load_checkpoint, save_checkpoint
from hear_msm_mae.encoder import patchify
from hear_msm_mae.mae import Decoder, MaskedAutoencoder, random_mask


def lively(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with larger weights, so that the attention is far from uniform."""
    return {k: v * 10 if "attn" in k or "mlp" in k else v for k, v in state.items()}


def with_joint_bias(state: dict[str, Tensor], key_bias: float) -> dict[str, Tensor]:
    """The same model with `qkv.bias`, the key part filled with noise of that size."""
    joined = {k: v for k, v in state.items() if not k.endswith(("q_bias", "v_bias"))}
    for name, query in state.items():
        if name.endswith("q_bias"):
            key = key_bias * torch.randn_like(query)
            value = state[name.replace("q_bias", "v_bias")]
            joined[name.replace("q_bias", "qkv.bias")] = torch.cat([query, key, value])
    return joined


# ---------------------------------------------------------------------------------------------
# Layouts
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cls", [True, False])
def test_the_converted_model_computes_the_same(reference_state, save, cls):
    state = lively(reference_state(width=128, depth=2, cls=cls))
    assert_same_model(save({"model": state, "epoch": 99, "args": ARGS}), state, heads=2)


def test_a_key_bias_cancels(state, save):
    original = with_joint_bias(lively(state), key_bias=3.0)
    spectrogram = torch.randn(1, 80, 208)
    silenced = with_joint_bias(lively(state), key_bias=0.0)
    expected = plain_tokens(original, spectrogram, 1)
    torch.testing.assert_close(plain_tokens(silenced, spectrogram, 1), expected)
    assert_same_model(save({"model": original}), original)
    # ... while a value bias would be missed
    name = "blocks.0.attn.qkv.bias"
    wrong = original | {name: original[name] * torch.tensor([1.0, 0, 0]).repeat_interleave(64)}
    assert (plain_tokens(wrong, spectrogram, 1) - expected).norm() / expected.norm() > 1e-3


def test_joint_and_separate_biases_give_the_same_tensors(state, save):
    separate = load_any(save({"model": state}, "separate.pth"))
    joint = load_any(save({"model": with_joint_bias(state, 1.0)}, "joint.pth"))
    assert joint.config == separate.config
    assert joint.tensors.keys() == separate.tensors.keys()
    for name, tensor in joint.tensors.items():
        assert torch.equal(tensor, separate.tensors[name]), name


def test_bare_state_dictionary(state, save):
    assert_same_model(save(state), state)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("zipped", [True, False])
def test_formats_of_torch_save(state, save, zipped, protocol):
    how = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    assert_same_model(save({"model": state, "args": ARGS}, **how), state)


def test_parameters_and_ordered_dictionaries(state, save):
    parameters = OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in state.items())
    assert_same_model(save({"model": parameters}), state)


def test_float16_tensors(state, save):
    rounded = {name: tensor.half().float() for name, tensor in state.items()}
    path = save({"model": {name: tensor.half() for name, tensor in state.items()}})
    assert all(tensor.dtype == torch.float32 for tensor in load_any(path).tensors.values())
    assert_same_model(path, rounded | {"pos_embed": state["pos_embed"]})


@pytest.mark.parametrize("decoder", ["1d", "2d"])
@pytest.mark.parametrize("cls", [True, False])
def test_with_decoder(reference_state, save, decoder, cls):
    checkpoint = load_any(save({"model": reference_state(decoder=decoder, cls=cls)}))
    config = checkpoint.config
    assert checkpoint.has_decoder
    assert config.cls_token is cls
    assert config.decoder_positions == decoder
    assert (config.decoder_width, config.decoder_depth, config.decoder_heads) == (64, 1, 1)
    model = MaskedAutoencoder(config)
    checkpoint.load_into(model.encoder)
    checkpoint.load_into(model.decoder, "decoder.")
    with torch.no_grad():
        loss = model(torch.randn(2, 80, 208), random_mask(2, 65, 0.75))
    assert loss.isfinite()


def test_decoder_tensors_arrive(state, save):
    checkpoint = load_any(save({"model": state}))
    decoder = Decoder(checkpoint.config)
    checkpoint.load_into(decoder, "decoder.")
    assert torch.equal(decoder.predict.weight, state["decoder_pred.weight"])
    assert torch.equal(decoder.embed.bias, state["decoder_embed.bias"])
    assert torch.equal(decoder.mask_token, state["mask_token"])
    assert torch.equal(decoder.blocks[0].attn.qkv.v_bias, state["decoder_blocks.0.attn.v_bias"])
    assert torch.equal(decoder.positions, state["decoder_pos_embed"][0, 1:].float())


def test_without_decoder(reference_state, save):
    state = reference_state(decoder=None)
    path = save({"model": state})
    assert not load_any(path).has_decoder
    assert_same_model(path, state)


@pytest.mark.parametrize(
    "change",
    [
        {"decoder_embed.weight": None},
        {"decoder_norm.bias": None},
        {"decoder_blocks.0.mlp.fc1.bias": None},
        {"mask_token": torch.zeros(1, 1, 32)},
        {"decoder_pos_embed": torch.randn(1, 66, 64)},
        {"decoder_pos_embed": torch.tensor(1.0)},
        {"decoder_extra.weight": torch.zeros(3)},
    ],
)
def test_a_decoder_that_does_not_fit_is_left_out_with_a_note(state, save, caplog, change):
    changed = {k: v for k, v in (state | change).items() if v is not None}
    path = save({"model": changed})
    with caplog.at_level(logging.WARNING):
        checkpoint = load_any(path)
    assert not checkpoint.has_decoder
    assert re.search("decoder is left out.*(missing|should be|table|unknown)", caplog.text)
    assert_same_model(path, state)


def test_patches_are_read_row_by_row(state, save):
    """A convolution kernel and a matrix on flattened patches are the same numbers."""
    checkpoint = load_any(save({"model": state}))
    spectrogram = torch.randn(1, 80, 208)
    matrix = checkpoint.tensors["encoder.patch_embed.weight"]
    by_matrix = patchify(spectrogram, checkpoint.config) @ matrix.T
    by_kernel = F.conv2d(spectrogram[:, None], state["patch_embed.proj.weight"], stride=16)
    torch.testing.assert_close(by_matrix, by_kernel.flatten(2).transpose(1, 2))


# ---------------------------------------------------------------------------------------------
# Into a file and into a model
# ---------------------------------------------------------------------------------------------
def test_load_model_takes_a_pth_directly(state, save, tmp_path):
    source = save({"model": with_joint_bias(state, 1.0), "args": ARGS, "norm_stats": [-6.5, 3.25]})
    converted = tmp_path / "converted.safetensors"
    checkpoint = load_any(source)
    save_checkpoint(converted, checkpoint)
    assert load_checkpoint(converted).config == checkpoint.config
    audio = torch.randn(2, 20000) * 0.1
    direct = load_model(source, mode="paper")
    assert direct.config.norm_std == 3.25
    torch.testing.assert_close(
        get_scene_embeddings(audio, direct),
        get_scene_embeddings(audio, load_model(str(converted), mode="paper")),
        rtol=0,
        atol=0,
    )


def test_a_wrong_suffix_does_not_matter(state, save, tiny_file, tmp_path):
    assert load_model(save({"model": state}, "model.safetensors")).config.width == 64
    (tmp_path / "model.pth").write_bytes(tiny_file.read_bytes())
    assert load_model(tmp_path / "model.pth").config.width == 32
