"""The training loop: learns, refuses, survives NaN, is watched; all in this process."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from toy_corpus import ToyCorpus, quick
from toy_runs import newest, scalars, snapshot

from hear_msm_mae.mae import MaskedAutoencoder
from hear_msm_mae.pretrain import hardware, snapshots, train
from hear_msm_mae.pretrain.reporting import scalar_writer
from hear_msm_mae.pretrain.step import parameter_groups
from hear_msm_mae.pretrain.train import TrainingDiverged, pretrain

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
    pytest.mark.usefixtures("small_and_alone"),
]


# ---------------------------------------------------------------------------------------------
# Learning
# ---------------------------------------------------------------------------------------------
def test_two_clips_are_overfitted_to_near_zero_loss(tmp_path):
    """Two clips as long as the crop: 15 of 20 patches are told from the other 5 and memory."""
    corpus = ToyCorpus(frames=(64, 64), sources=("a", "a"), mean=-6.0, std=3.0)
    model = {"unit_frames": 64, "width": 64, "depth": 3, "decoder_width": 48}
    settings = quick(tmp_path, **model, batch=16, steps=500, base_lr=0.024, log_steps=1)
    pretrain(settings, corpus=corpus)
    loss = scalars(tmp_path)["loss"]
    assert loss[1] > 0.5
    assert np.mean([loss[step] for step in range(491, 501)]) < 0.01 * loss[1]


def test_held_out_clips_are_predicted_better_than_by_the_corpus_mean(tmp_path):
    """On clips of pitches that were not trained on; 1 is the mean predictor's loss."""
    corpus = ToyCorpus(frames=(200,) * 40, sources=("a",) * 40)
    values = corpus.frames.double()
    corpus.mean, corpus.std = float(values.mean()), float(values.std())
    settings = quick(tmp_path, width=64, steps=220, batch=16, base_lr=0.02, holdout=0.25)
    pretrain(dataclasses.replace(settings, holdout_crops=64), corpus=corpus)
    assert scalars(tmp_path)["held_out/loss_vs_mean"][220] < 0.6


def test_accumulation_changes_only_rounding(tmp_path):
    for parts in (1, 4):
        pretrain(quick(tmp_path / str(parts), accumulation=parts), corpus=ToyCorpus())
    whole, split = newest(tmp_path / "1"), newest(tmp_path / "4")
    for name, tensor in whole.model.items():
        torch.testing.assert_close(split.model[name], tensor, rtol=0, atol=2e-4)


def test_bf16_follows_fp32(tmp_path):
    for precision in ("fp32", "bf16"):
        run = tmp_path / precision
        pretrain(quick(run, precision=precision, log_steps=1), corpus=ToyCorpus())
    exact, rounded = (scalars(tmp_path / p)["loss"] for p in ("fp32", "bf16"))
    assert exact != rounded
    np.testing.assert_allclose(list(rounded.values()), list(exact.values()), rtol=0.05)


def test_targets_are_made_from_float32_in_bf16_runs(tmp_path, monkeypatch):
    seen = []
    original = MaskedAutoencoder.target

    def target(self, spectrogram, mask):
        seen.append(spectrogram.dtype)
        return original(self, spectrogram, mask)

    monkeypatch.setattr(MaskedAutoencoder, "target", target)
    pretrain(quick(tmp_path, precision="bf16", steps=2), corpus=ToyCorpus())
    assert seen
    assert set(seen) == {torch.float32}


def test_every_device_learns_the_same(tmp_path, device):
    """On a GPU most steps are a recorded graph that is replayed."""
    settings = quick(tmp_path / "cpu", log_steps=1, accelerator="cpu", gain_db=3.0, mix=0.5)
    pretrain(settings, corpus=ToyCorpus())
    there = tmp_path / "device"
    changed = dataclasses.replace(settings, run_dir=str(there), accelerator=device.type)
    for bank in ("auto", "host"):
        pretrain(dataclasses.replace(changed, bank=bank, steps=12), corpus=ToyCorpus())
        one, two = scalars(tmp_path / "cpu")["loss"], scalars(there)["loss"]
        np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-3)


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(tmp_path):
    for compiled in (False, True):
        run = tmp_path / str(compiled)
        pretrain(quick(run, compile=compiled, log_steps=1, steps=6), corpus=ToyCorpus())
    plain, compiled = (scalars(tmp_path / name)["loss"] for name in ("False", "True"))
    np.testing.assert_allclose(list(compiled.values()), list(plain.values()), rtol=1e-4)


def test_clock_decides_the_length(tmp_path, monkeypatch):
    """Each look at the clock is a tenth of a second later; the learning rate follows it."""
    clock = itertools.count(100.0, 0.1)
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))
    settings = quick(tmp_path, steps=None, minutes=0.5, warmup=0.2, log_steps=1)
    outcome = pretrain(settings, corpus=ToyCorpus())
    assert outcome.signal is None
    assert newest(tmp_path).progress.seconds >= 30
    rates = list(scalars(tmp_path)["lr"].values())
    assert len(rates) == outcome.step > 20
    top = rates.index(max(rates))
    assert 0.1 < top / len(rates) < 0.3
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(0.01 * 8 / 128, rel=0.05)
    assert rates[-1] < 0.02 * max(rates)
    before = outcome.step
    assert pretrain(settings, corpus=ToyCorpus()).step == before  # it is finished


def test_weight_decay_only_on_matrices():
    model = MaskedAutoencoder(quick("unused").model)
    decayed, rest = parameter_groups(model, 0.05)
    names = {id(p): n for n, p in model.named_parameters()}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(rest["params"]) == len(names)
    assert all(names[id(p)].endswith(".weight") and p.ndim == 2 for p in decayed["params"])
    free = {names[id(p)] for p in rest["params"]}
    assert {"encoder.cls_token", "decoder.mask_token", "encoder.norm.weight"} <= free
    assert {"encoder.blocks.0.attn.qkv.q_bias", "decoder.predict.bias"} <= free


def test_denormal_numbers_are_the_callers_choice(tmp_path):
    for flushed in (True, False):
        torch.set_flush_denormal(flushed)
        pretrain(quick(tmp_path / str(flushed), steps=1), corpus=ToyCorpus())
        assert (float(torch.tensor(1e-39) * 1) == 0) == flushed


# ---------------------------------------------------------------------------------------------
# NaN
# ---------------------------------------------------------------------------------------------
def test_bad_steps_are_skipped_and_counted(tmp_path):
    corpus = ToyCorpus(frames=(100, 40, 20, 5), poisoned=(3,))  # in about a quarter of the steps
    pretrain(quick(tmp_path, steps=30, max_bad_steps=30), corpus=corpus)
    state = newest(tmp_path)
    assert 0 < state.progress.skipped < 30
    assert state.progress.step == 30
    assert all(torch.isfinite(tensor).all() for tensor in state.model.values())


def test_run_stops_when_nothing_but_nan_comes(copy):
    before = snapshots.checkpoints(copy)[0].read_bytes()
    settings = quick(copy, max_bad_steps=3)
    with pytest.raises(TrainingDiverged, match=r"4 steps in a row.*step-000000008\.pt.*base_lr"):
        pretrain(settings, corpus=ToyCorpus(poisoned=(0, 1, 2, 3)))
    assert snapshots.checkpoints(copy)[0].read_bytes() == before


# ---------------------------------------------------------------------------------------------
# Watching
# ---------------------------------------------------------------------------------------------
def test_scalars_and_settings_are_written(finished):
    recorded = scalars(finished)
    assert {
        "loss",
        "lr",
        "gradient_norm",
        "skipped_steps",
        "samples_per_second",
        "data_wait_share",
        "matmul_share",
    } <= set(recorded)
    assert recorded["samples_per_second"][10] > 0
    assert 0 <= recorded["data_wait_share"][10] < 1
    from hear_msm_mae.pretrain.parsing import load_recipe

    assert load_recipe(finished / "settings.yaml") == newest(finished).settings


def test_linear_probe_on_labelled_folder(tmp_path):
    import soundfile

    for label, pitch in {"low": 200.0, "high": 3000.0}.items():
        (tmp_path / "probe" / label).mkdir(parents=True)
        for i in range(6):
            wave = 0.1 * np.sin(2 * np.pi * pitch * (1 + i / 20) * np.arange(8000) / 16000)
            soundfile.write(tmp_path / "probe" / label / f"{i}.wav", wave, 16000)
    settings = quick(tmp_path / "run", probe=str(tmp_path / "probe"), steps=2)
    pretrain(settings, corpus=ToyCorpus())
    assert scalars(tmp_path / "run")["probe/accuracy"][2] == 1.0


def test_bad_probe_folder_is_refused_before_the_run(tmp_path):
    settings = quick(tmp_path / "run", probe=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="probe"):
        pretrain(settings, corpus=ToyCorpus())
    (tmp_path / "empty" / "label").mkdir(parents=True)
    settings = quick(tmp_path / "run", probe=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"probe .* at least two sub-folders"):
        pretrain(settings, corpus=ToyCorpus())
    assert not (tmp_path / "run").exists()


def test_missing_corpus_and_other_mel_bins_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        pretrain(quick(tmp_path / "run", corpus=str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"n_mels is 80, but the corpus .* 64 mel bins"):
        pretrain(quick(tmp_path / "run"), corpus=ToyCorpus(n_mels=64))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator=tpu with devices=auto cannot be used here"),
        ({"accelerator": "abacus"}, "accelerator=abacus with devices=auto cannot be used here"),
        pytest.param(
            {"accelerator": "cuda"},
            "accelerator=cuda with devices=auto cannot be used here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_hardware_that_is_not_there_is_refused(copy, changes, message):
    """Also when a run is resumed that had it; nothing is overwritten."""
    before = snapshot(copy)
    with pytest.raises(ValueError, match=message):
        pretrain(quick(copy, **changes), corpus=ToyCorpus())
    assert snapshot(copy) == before


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError)("CUDA error: bus"),
            "repeat",
        ),
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory."),
            "raise accumulation, or set bank=host",
        ),
    ],
)
def test_device_that_fails_leaves_the_checkpoints(copy, monkeypatch, error, advice):
    def fail(self, parts, lr):
        raise error

    before = snapshots.checkpoints(copy)[0].read_bytes()
    monkeypatch.setattr(train.Stepper, "__call__", fail)
    with pytest.raises(OSError, match=f"the GPU failed: CUDA .*step-000000008.pt; {advice}"):
        pretrain(quick(copy), corpus=ToyCorpus())
    assert snapshots.checkpoints(copy)[0].read_bytes() == before
    assert not list((copy / "checkpoints").glob(".*"))


def test_bank_that_does_not_fit_is_refused(monkeypatch):
    """By a GPU of 100 bytes, of which 40 are free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40, 100))
    bank, gpu = ToyCorpus(), torch.device("cuda", 0)
    with pytest.raises(ValueError, match=r"bank=device, but the corpus .* set bank=host"):
        hardware.place_bank(bank, "device", gpu)
    assert hardware.place_bank(bank, "auto", gpu) is bank
    assert hardware.place_bank(bank, "host", gpu) is bank
    assert hardware.place_bank(bank, "device", torch.device("cpu")) is bank


def test_tensorboard_does_not_import_tensorflow(tmp_path):
    with scalar_writer(tmp_path, 1) as writer:
        writer.add_scalar("loss", 1.0, 1)
    from tensorboard.compat import tf

    assert tf.__version__ == "stub"  # TensorBoard's replacement
    assert scalars(tmp_path)["loss"] == {1: 1.0}
