"""Masked autoencoder against recorded numbers and its own definition."""

import dataclasses

import pytest
import torch
from reference import assert_matches

from hear_msm_mae.checkpoints.foreign import load_any
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import patchify
from hear_msm_mae.mae import Mask, MaskedAutoencoder, random_mask

TINY = ModelConfig(width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)


@pytest.fixture
def masked(reference_model):
    """Model, arrays, unit and recorded mask; None where the reference's decoder is defective."""
    model, arrays, unit = reference_model
    return model, arrays, unit, Mask.from_bool(torch.from_numpy(arrays["mask"]))


@pytest.fixture
def sound(masked):
    """The same without the file whose decoder arrays carry the reference's defect."""
    if not masked[0].config.cls_token:
        pytest.skip("golden/README.md: decoder arrays without CLS carry a defect")
    return masked


def test_masked_latents_agree_with_golden(masked):
    model, arrays, unit, mask = masked
    with torch.no_grad():
        latents = model.encoder(unit, mask.visible)
    if model.config.cls_token:
        assert_matches(latents[:, 0], arrays, "masked_latent_cls")
        latents = latents[:, 1:]
    grid = torch.zeros(3, arrays["mask"].shape[1], model.config.width)
    grid.scatter_(1, mask.visible[..., None].expand_as(latents), latents)
    assert_matches(grid, arrays, "masked_latent_on_grid")


def test_losses_and_gradients_agree_with_golden(sound):
    model, arrays, unit, mask = sound
    loss = model(unit, mask)
    assert loss.item() == pytest.approx(float(arrays["masked_loss"]), rel=1e-5)
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    state = {str(name): gradients_name(str(name)) for name in arrays["grad_names"]}
    assert len(set(state.values())) == len(gradients)
    for name, norm in zip(arrays["grad_names"], arrays["grad_norms"], strict=True):
        actual = gradients[state[str(name)]].double().norm().item()
        assert actual == pytest.approx(norm, rel=1e-3), name
    projection = gradients["encoder.patch_embed.weight"].reshape(-1)[::37]
    torch.testing.assert_close(
        projection, torch.from_numpy(arrays["grad_patch_proj__s37"]), rtol=1e-3, atol=1e-6
    )
    model.zero_grad()


def gradients_name(name: str) -> str:
    """This package's name for a parameter of the reference (written out, not imported)."""
    fixed = {
        "patch_embed.proj.weight": "encoder.patch_embed.weight",
        "patch_embed.proj.bias": "encoder.patch_embed.bias",
        "mask_token": "decoder.mask_token",
    }
    if name in fixed:
        return fixed[name]
    name = name.replace("attn.q_bias", "attn.qkv.q_bias").replace("attn.v_bias", "attn.qkv.v_bias")
    for old, new in (
        ("blocks", "blocks"),
        ("embed", "embed"),
        ("norm", "norm"),
        ("pred", "predict"),
    ):
        if name.startswith(f"decoder_{old}."):
            return name.replace(f"decoder_{old}.", f"decoder.{new}.", 1)
    return f"encoder.{name}"


def test_normalised_pixel_loss_agrees_with_golden(sound):
    model, arrays, unit, mask = sound
    model.norm_pixels = True
    try:
        with torch.no_grad():
            loss = model(unit, mask).item()
    finally:
        model.norm_pixels = False
    assert loss == pytest.approx(float(arrays["masked_loss_normpix"]), rel=1e-5)


def test_predictions_and_reconstructions_agree_with_golden(sound):
    model, arrays, unit, mask = sound
    with torch.no_grad():
        assert_matches(model.predict(unit, mask), arrays, "masked_pred")
        reconstruction = model.reconstruct(unit, mask)
        # Visible patches show the input, whose log-mel tolerance is 1e-3.
        assert_matches(reconstruction[:, None], arrays, "masked_recon", atol=1e-3, relative_l2=None)
        error = (reconstruction - unit).abs()[:, None]
        assert_matches(error, arrays, "masked_errormap", atol=1e-3, relative_l2=None)
        if "decode_to_lms" in arrays:
            decoded = model.decode(model.encoder(unit))
            assert_matches(decoded[:, None], arrays, "decode_to_lms")


def test_decoder_table_agrees_with_golden(masked):
    model, arrays, _, _ = masked
    table = model.decoder.positions
    if model.config.cls_token:
        table = torch.cat([torch.zeros(1, model.config.decoder_width), table])
    assert_matches(table[None], arrays, "decoder_pos_embed", atol=1e-6)


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize("positions", ["1d", "2d"])
def test_decoder_sees_every_visible_patch_at_its_place(cls_token, positions):
    """The defect of the reference: without CLS its decoder loses a patch and shifts the rest."""
    sizes = {"cls_token": cls_token, "decoder_positions": positions}
    model = MaskedAutoencoder(ModelConfig(**(TINY.__dict__ | sizes))).eval()
    generator = torch.Generator().manual_seed(1)
    unit = torch.randn(1, 80, 208, generator=generator)
    mask = random_mask(1, 65, 0.75, generator)
    with torch.no_grad():
        latents = model.encoder(unit, mask.visible)
        base = model.decoder(latents, mask)
        for k in range(mask.visible.shape[1]):
            changed = latents.clone()
            changed[:, int(cls_token) + k] += 1.0
            change = (model.decoder(changed, mask) - base).norm(dim=-1)[0]
            # Its own place changes most, by far (the residual path).
            assert change.argmax() == mask.visible[0, k]
        shuffled = torch.randperm(mask.visible.shape[1], generator=generator)
        order = torch.cat([torch.arange(int(cls_token)), int(cls_token) + shuffled])
        again = model.decoder(latents[:, order], Mask(mask.visible[:, shuffled], mask.masked))
    torch.testing.assert_close(again, base, rtol=1e-4, atol=1e-5)


def test_loss_ignores_predictions_on_visible_patches():
    model = MaskedAutoencoder(TINY).eval()
    unit = torch.randn(2, 80, 208)
    mask = random_mask(2, 65, 0.75)
    with torch.no_grad():
        error = (model.predict(unit, mask) - patchify(unit, TINY)).square().mean(-1)
        expected = error.gather(1, mask.masked).mean()
        torch.testing.assert_close(model(unit, mask), expected, rtol=1e-4, atol=1e-5)


def test_reconstruction_keeps_visible_patches_and_scales_normalised_ones():
    model = MaskedAutoencoder(dataclasses.replace(TINY, norm_pixels=True)).eval()
    unit = torch.randn(2, 80, 208) * 3 + 5
    mask = random_mask(2, 65, 0.75)
    with torch.no_grad():
        patches = patchify(model.reconstruct(unit, mask), TINY)
    original = patchify(unit, TINY)
    for clip in range(2):
        torch.testing.assert_close(
            patches[clip, mask.visible[clip]], original[clip, mask.visible[clip]]
        )
    # An untrained prediction is near zero, so scaled back it lies around the patch mean.
    assert (patches.mean() - 5).abs() < 1


def test_mask_from_bool_and_its_errors():
    masked = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.uint8)
    mask = Mask.from_bool(masked)
    assert mask.visible.tolist() == [[1, 3], [0, 3]]
    assert mask.masked.tolist() == [[0, 2], [1, 2]]
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        Mask.from_bool(torch.tensor([[1, 1], [0, 1]]))
    for ratio in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(ValueError, match="mask_ratio"):
            random_mask(1, 65, ratio)
    assert random_mask(2, 65, 0.75).visible.shape == (2, 16)
    assert random_mask(2, 65, 0.9999).visible.shape == (2, 1)


def test_golden_state_converts_completely(reference_weights, reference_model):
    names = {name for name, _ in reference_model[0].named_parameters()}
    assert set(load_any(reference_weights[0]).tensors) == names
