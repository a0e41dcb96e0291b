"""Encoder against recorded numbers and the geometry that DESIGN.md states."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_matches

from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder, patchify, sincos_2d, unpatchify

SIZES = [(16, 16), (16, 8), (16, 4), (8, 16), (8, 8), (80, 4), (80, 2)]


def small(**sizes) -> ModelConfig:
    return ModelConfig(**({"width": 48, "depth": 2, "heads": 3} | sizes))


@pytest.mark.parametrize(("patch_mels", "patch_frames"), SIZES)
def test_patches_are_frequency_major(patch_mels, patch_frames):
    config = small(patch_mels=patch_mels, patch_frames=patch_frames)
    spectrogram = torch.randn(2, 80, 4 * patch_frames)
    patches = patchify(spectrogram, config)
    for row in range(config.rows):
        for column in range(4):
            expected = spectrogram[
                :,
                row * patch_mels : (row + 1) * patch_mels,
                column * patch_frames : (column + 1) * patch_frames,
            ]
            torch.testing.assert_close(patches[:, row * 4 + column], expected.flatten(1))
    torch.testing.assert_close(unpatchify(patches, config), spectrogram)


def test_unit_encoder_agrees_with_golden(reference_model):
    model, arrays, unit = reference_model
    with torch.no_grad():
        assert_matches(model.encoder(unit), arrays, "unit_encoder")


def test_position_table_agrees_with_golden(reference_model):
    model, arrays, _ = reference_model
    table = model.encoder.positions.flatten(0, 1)
    if model.config.cls_token:
        table = torch.cat([torch.zeros(1, model.config.width), table])
    assert_matches(table[None], arrays, "pos_embed", atol=1e-6)


def test_shorter_unit_gets_the_matching_columns():
    """Token for token the same as encoding these patches within a whole unit's table."""
    config = small()
    encoder = Encoder(config).eval()
    short = torch.randn(1, 80, 5 * 16)
    whole = torch.nn.functional.pad(short, (0, 208 - 80))
    visible = torch.tensor([[row * 13 + column for row in range(5) for column in range(5)]])
    with torch.no_grad():
        torch.testing.assert_close(encoder(short), encoder(whole, visible), rtol=1e-4, atol=1e-5)


def test_table_does_not_depend_on_the_number_of_columns():
    torch.testing.assert_close(sincos_2d(5, 13, 64), sincos_2d(5, 26, 64)[:, :13])


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize(("patch_mels", "patch_frames"), SIZES)
def test_frame_embeddings_concatenate_low_to_high(patch_mels, patch_frames, cls_token):
    config = small(patch_mels=patch_mels, patch_frames=patch_frames, cls_token=cls_token)
    encoder = Encoder(config).eval()
    tokens = encoder(torch.randn(2, 80, 3 * patch_frames))
    assert tokens.shape == (2, cls_token + config.rows * 3, 48)
    frames = encoder.frame_embeddings(tokens)
    assert frames.shape == (2, 3, config.rows * 48)
    for column in range(3):
        expected = [tokens[:, cls_token + row * 3 + column] for row in range(config.rows)]
        torch.testing.assert_close(frames[:, column], torch.cat(expected, dim=1))


def test_layers_end_with_the_normalised_output():
    encoder = Encoder(small(depth=3)).eval()
    spectrogram = torch.randn(2, 80, 208)
    outputs = encoder(spectrogram, layers=range(3))
    assert len(outputs) == 3
    torch.testing.assert_close(outputs[-1], encoder(spectrogram))
    torch.testing.assert_close(outputs[-1].mean(-1), torch.zeros(2, 66), atol=1e-5, rtol=0)
    assert outputs[0].mean(-1).abs().max() > 1e-3


def test_layers_come_in_the_order_asked_for_and_are_the_blocks_outputs():
    encoder = Encoder(small(depth=3)).eval()
    seen = {}
    for i, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda m, x, output, i=i: seen.update({i: output}))
    one, zero, again = encoder(torch.randn(2, 80, 208), layers=(1, 0, -2))
    assert torch.equal(zero, seen[0])
    assert torch.equal(one, seen[1])
    assert torch.equal(again, seen[1])
    assert 2 not in seen  # nobody asked for the last block
    with pytest.raises(IndexError):
        encoder(torch.randn(2, 80, 208), layers=(3,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_global_default_dtype_does_not_matter(dtype):
    spectrogram = torch.randn(1, 80, 208)
    try:
        torch.set_default_dtype(dtype)
        torch.manual_seed(3)
        encoder = Encoder(small())
        with torch.no_grad():
            found = encoder(spectrogram)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {x.dtype for x in [*encoder.parameters(), *encoder.buffers(), found]} == {torch.float32}
    torch.manual_seed(3)
    with torch.no_grad():
        assert torch.equal(found, Encoder(small())(spectrogram))


@settings(max_examples=10)
@given(st.permutations(range(65)), st.integers(1, 64))
def test_order_of_visible_patches_does_not_matter(order, count):
    encoder = Encoder(small(depth=1)).eval()
    spectrogram = torch.randn(1, 80, 208, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([order[:count]])
    with torch.no_grad():
        shuffled = encoder(spectrogram, visible)[0, 1:]
        ordered = encoder(spectrogram, visible.sort(1).values)[0, 1:]
    torch.testing.assert_close(shuffled[visible[0].argsort()], ordered, rtol=1e-4, atol=1e-5)


def test_all_parameters_get_gradients(device):
    encoder = Encoder(small()).to(device)
    encoder(torch.randn(2, 80, 208, device=device)).square().mean().backward()
    missing = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not missing


def test_attention_equals_the_textbook_formula():
    """One block, computed here with an explicit softmax and no key bias."""
    config = small(depth=1)
    encoder = Encoder(config).eval()
    block = encoder.blocks[0]
    torch.nn.init.normal_(block.attn.qkv.q_bias)
    torch.nn.init.normal_(block.attn.qkv.v_bias)
    x = torch.randn(1, 7, 48)

    def norm(y, layer):
        mean, var = y.mean(-1, keepdim=True), y.var(-1, keepdim=True, unbiased=False)
        return (y - mean) / (var + 1e-6).sqrt() * layer.weight + layer.bias

    y = norm(x, block.norm1)
    wq, wk, wv = block.attn.qkv.weight.chunk(3)
    q, k, v = y @ wq.T + block.attn.qkv.q_bias, y @ wk.T, y @ wv.T + block.attn.qkv.v_bias
    heads = []
    for part in torch.arange(48).chunk(3):
        scores = q[..., part] @ k[..., part].mT / np.sqrt(16)
        heads.append(scores.softmax(-1) @ v[..., part])
    attention = torch.cat(heads, -1) @ block.attn.proj.weight.T + block.attn.proj.bias
    x1 = x + attention
    hidden = norm(x1, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / np.sqrt(2)))
    expected = x1 + gelu @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize("block", [0, 1, -1])
def test_attention_weights_are_those_that_the_block_uses(cls_token, block):
    encoder = Encoder(small(depth=3, cls_token=cls_token)).eval()
    attention, seen = encoder.blocks[block].attn, []
    attention.register_forward_hook(lambda module, x, output: seen.extend([x[0], output]))
    units = torch.randn(2, 80, 96) * 2
    with torch.no_grad():
        encoder(units)  # fused attention, which does not form the weights
        weights = encoder.attention(units, block)
        value = attention.qkv(seen[0])[..., 2 * 48 :].unflatten(-1, (3, 16))
        expected = attention.proj(torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(2))
    assert weights.shape == (2, 3, 30 + cls_token, 30 + cls_token)
    torch.testing.assert_close(seen[1], expected)


def test_fused_and_plain_attention_agree():
    encoder = Encoder(small()).eval()
    spectrogram = torch.randn(2, 80, 208)
    with torch.no_grad():
        fused = encoder(spectrogram)
        for block in encoder.blocks:
            block.attn.fused_attn = False
        torch.testing.assert_close(encoder(spectrogram), fused)


@pytest.mark.parametrize("shape", [(80, 208), (1, 64, 208), (1, 80, 200), (1, 1, 80, 208)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="spectrogram"):
        Encoder(small())(torch.zeros(shape))


def test_longer_than_a_unit_is_refused():
    with pytest.raises(ValueError, match="at most 208"):
        Encoder(small())(torch.zeros(1, 80, 224))
