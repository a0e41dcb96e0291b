"""Objectives: latents of a frozen teacher, beside the pixels that the other tests train on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_corpus import ToyCorpus, quick
from toy_runs import identical, newest, scalars

from hear_msm_mae import load_model
from hear_msm_mae.checkpoints.native import load_checkpoint
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.mae import MaskedAutoencoder, random_mask
from hear_msm_mae.pretrain import hardware, snapshots
from hear_msm_mae.pretrain.export import export
from hear_msm_mae.pretrain.objectives import LatentPredictor
from hear_msm_mae.pretrain.train import pretrain

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
    pytest.mark.usefixtures("small_and_alone"),
]
CONFIG = quick("unused", unit_frames=64).model  # 20 patches
WIDE = dataclasses.replace(CONFIG, width=48, depth=3, heads=3, cls_token=False)


@pytest.fixture(scope="module")
def teacher(finished, tmp_path_factory):
    """Weights of the toy run."""
    return str(export(finished, tmp_path_factory.mktemp("teacher") / "teacher.safetensors"))


def predictor(**weights):
    torch.manual_seed(3)
    return LatentPredictor(CONFIG, Encoder(WIDE), **weights)


# ---------------------------------------------------------------------------------------------
# The losses by their definitions
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("norm", "axes"), [("clip", 1), ("batch", (0, 1))])
def test_targets_are_normalised_blocks_of_the_whole_spectrogram(norm, axes):
    model = predictor(target_norm=norm)
    x = torch.randn(2, 80, 64)
    total = np.zeros((2, 20, 48))
    for tokens in model.teacher(x, layers=[0, 1, 2]):
        block = tokens.detach().double().numpy()  # (b, l, d)
        mean, std = block.mean(axes, keepdims=True), block.std(axes, keepdims=True)
        total += (block - mean) / std / 3
    expected = (total - total.mean(2, keepdims=True)) / total.std(2, keepdims=True)
    np.testing.assert_allclose(model.latents(x).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_loss_is_the_weighted_sum_of_three():
    x, mask = torch.randn(4, 80, 64), random_mask(4, 20, 0.75)
    model = predictor(pixel_weight=0.5, pooled_weight=2.0)
    visible = model.encoder(x, mask.visible)
    tokens = model.decoder.tokens(visible, mask, mask.masked)
    whole = model.latents(x)
    masked = torch.stack([w[m] for w, m in zip(whole, mask.masked, strict=True)])
    latents = (model.to_latents(tokens) - masked).square().mean()
    pooled = (model.to_pooled(visible[:, 1:].mean(1)) - whole.mean(1)).square().mean()
    patches = MaskedAutoencoder.target(model, x, mask)
    pixels = (model.decoder.predict(tokens) - patches).square().mean()
    torch.testing.assert_close(model(x, mask), latents + 0.5 * pixels + 2 * pooled)
    torch.testing.assert_close(
        model.target(x, mask).square().mean(), torch.tensor(1.0), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("objective", ["pixels", "latents"])
def test_several_masks_are_the_mean_of_single_ones(objective):
    torch.manual_seed(0)
    model = MaskedAutoencoder(CONFIG) if objective == "pixels" else predictor(pooled_weight=1.0)
    x = torch.randn(3, 80, 64)
    mask = random_mask(6, 20, 0.75)
    single = [model(x, type(mask)(mask.visible[i::2], mask.masked[i::2])) for i in (0, 1)]
    torch.testing.assert_close(model(x, mask), torch.stack(single).mean())


def test_teacher_is_no_part_of_the_student(device):
    model = predictor().to(device)
    mask = random_mask(2, 20, 0.75)
    model(
        torch.randn(2, 80, 64, device=device), type(mask)(*(x.to(device) for x in mask))
    ).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert all(p.device.type == device.type for p in model.teacher.parameters())
    without_gradient = {name for name, p in model.named_parameters() if p.grad is None}
    assert without_gradient == {"decoder.predict.weight", "decoder.predict.bias"}
    prefixes = {name.partition(".")[0] for name in model.state_dict()}
    assert prefixes == {"encoder", "decoder", "to_latents"}


@pytest.mark.parametrize("masks", [1, 2])
def test_flops_are_those_that_torch_counts(masks):
    from torch.utils.flop_counter import FlopCounterMode

    settings = quick(
        "x", unit_frames=64, objective="latents", teacher="t", pixel_weight=1.0, masks=masks
    )
    model = predictor(pixel_weight=1.0)
    for part in (model, model.teacher):
        hardware.set_attention(part, fused=False)  # torch does not count the fused one on the CPU
    # Without gradients and autocast, the teacher's products are ones that torch does not count.
    autocast = torch.autocast("cpu", torch.bfloat16)
    with FlopCounterMode(display=False) as counter, autocast:
        model(torch.randn(2, 80, 64), random_mask(2 * masks, 20, 0.75)).backward()
    expected = counter.get_total_flops()
    assert hardware.training_flops(settings, WIDE) * 2 * masks == expected


# ---------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------
def latents(run_dir, teacher, **changes):
    return quick(run_dir, objective="latents", teacher=teacher, **changes)


def test_latents_are_learnt_and_the_encoder_is_exported(tmp_path, teacher):
    corpus = ToyCorpus(frames=(200,) * 40, sources=("a",) * 40)
    changes = {"width": 64, "steps": 120, "batch": 16, "holdout": 0.25, "holdout_crops": 32}
    settings = latents(tmp_path / "run", teacher, base_lr=0.02, pooled_weight=0.5, **changes)
    pretrain(settings, corpus=corpus)
    recorded = scalars(tmp_path / "run")
    assert recorded["held_out/loss_vs_mean"][120] < 0.85
    path = export(tmp_path / "run", tmp_path / "out.safetensors")
    assert not load_checkpoint(path).has_decoder
    assert load_model(path)(torch.rand(1, 16000) - 0.5).isfinite().all()


def test_with_pixels_beside_the_decoder_is_exported(tmp_path, teacher):
    settings = latents(tmp_path / "run", teacher, pixel_weight=0.1, pictures=2, steps=2)
    pretrain(settings, corpus=ToyCorpus())
    assert load_checkpoint(export(tmp_path / "run", tmp_path / "out.safetensors")).has_decoder
    assert (tmp_path / "run" / "pictures" / "step-000000002.png").exists()


def test_student_may_start_from_the_teacher(tmp_path, teacher):
    """Also with a deeper decoder, which begins anew."""
    settings = latents(
        tmp_path, teacher, init_from=teacher, data_seed=1, decoder_depth=2, steps=1, base_lr=0.0
    )
    pretrain(settings, corpus=ToyCorpus())
    student = newest(tmp_path).model
    for name, tensor in load_checkpoint(teacher).part("encoder.").items():
        assert torch.equal(student[f"encoder.{name}"], tensor)


def test_resumed_run_on_latents_ends_in_the_same_bits(tmp_path, teacher):
    for name in ("whole", "cut"):
        settings = latents(tmp_path / name, teacher, masks=2, pooled_weight=1.0, checkpoint_steps=4)
        pretrain(settings, corpus=ToyCorpus())
    snapshots.checkpoints(tmp_path / "cut")[0].unlink()
    pretrain(settings, corpus=ToyCorpus())
    assert identical(newest(tmp_path / "cut"), newest(tmp_path / "whole"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(Path(teacher).read_bytes())
    pretrain(dataclasses.replace(settings, teacher=str(other)), corpus=ToyCorpus())  # same content
    export(tmp_path / "whole", other)
    with pytest.raises(ValueError, match=r"teacher .* is another file than the run began with"):
        pretrain(dataclasses.replace(settings, teacher=str(other)), corpus=ToyCorpus())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_mels": 8}, r"teacher .*: patch_mels was 16 and is now 8"),
        ({"patch_frames": 32}, r"teacher .*: patch_frames was 16 and is now 32"),
        ({"unit_frames": 64}, r"units have 32 frames, fewer than unit_frames \(64\)"),
        ({"norm_mean": -5.0}, r"mean -8.0000, std 4.0000 .* set norm_mean=-8 norm_std=4"),
        ({"norm_std": 5.0}, r"set norm_mean=-8 norm_std=4"),
    ],
)
def test_teacher_that_does_not_fit_is_refused(tmp_path, teacher, changes, message):
    with pytest.raises(ValueError, match=message):
        pretrain(latents(tmp_path / "run", teacher, **changes), corpus=ToyCorpus())
    assert not (tmp_path / "run").exists()


def test_teacher_on_another_corpus_sees_its_statistics(tmp_path, teacher):
    settings = latents(tmp_path / "run", teacher, norm_mean=-8.0, norm_std=4.0, steps=1)
    pretrain(settings, corpus=ToyCorpus(mean=-3.0, std=2.0))
    path = export(tmp_path / "run", tmp_path / "out.safetensors")
    config = load_checkpoint(path).config
    assert (config.norm_mean, config.norm_std) == (-8.0, 4.0)


def test_missing_teacher_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        pretrain(latents(tmp_path / "run", str(tmp_path / "none")), corpus=ToyCorpus())
    assert not (tmp_path / "run").exists()
