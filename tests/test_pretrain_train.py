"""The training loop: learns, resumes, refuses, survives NaN; all in this process."""

import dataclasses
import logging
import os

import numpy as np
import pytest
import torch
from toy_corpus import ToyCorpus, quick

import hear_msm_mae
from hear_msm_mae.checkpoint import load_checkpoint
from hear_msm_mae.pretrain import speed
from hear_msm_mae.pretrain import state as states
from hear_msm_mae.pretrain.engine import parameter_groups
from hear_msm_mae.pretrain.mae import MaskedAutoencoder
from hear_msm_mae.pretrain.train import TrainingDiverged, export, pretrain

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning")


@pytest.fixture(autouse=True)
def _small_and_alone(monkeypatch):
    monkeypatch.setattr(speed, "PEAK_SIZE", 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def newest(run_dir):
    return states.load_latest(run_dir)


def identical(first, second):
    """Whether two runs ended in the same bits: weights and optimiser."""
    weights = all(torch.equal(first.model[k], second.model[k]) for k in first.model)
    moments = [
        all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(
            first.optimizer["state"].values(), second.optimizer["state"].values(), strict=True
        )
    ]
    return weights and all(moments) and first.progress.step == second.progress.step


def scalars(run_dir):
    """{tag: {step: value}} of the TensorBoard files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return {t: {e.step: e.value for e in events.Scalars(t)} for t in events.Tags()["scalars"]}


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
    values = np.stack([corpus.read(clip, 0, 200) for clip in range(40)]).astype(np.float64)
    corpus.mean, corpus.std = values.mean(), values.std()
    settings = quick(tmp_path, width=64, steps=300, batch=16, base_lr=0.02, holdout=0.25)
    pretrain(dataclasses.replace(settings, holdout_crops=64), corpus=corpus)
    assert scalars(tmp_path)["held_out/loss_vs_mean"][300] < 0.6


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


def test_weight_decay_only_on_matrices():
    model = MaskedAutoencoder(quick("unused").model_config())
    decayed, rest = parameter_groups(model, 0.05)
    names = {id(p): n for n, p in model.named_parameters()}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(rest["params"]) == len(names)
    assert all(names[id(p)].endswith(".weight") and p.ndim == 2 for p in decayed["params"])
    free = {names[id(p)] for p in rest["params"]}
    assert {"encoder.cls_token", "decoder.mask_token", "encoder.norm.weight"} <= free
    assert {"encoder.blocks.0.attn.qkv.q_bias", "decoder.predict.bias"} <= free


# ---------------------------------------------------------------------------------------------
# Resuming
# ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps with checkpoints at 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("finished")
    peak_size, speed.PEAK_SIZE = speed.PEAK_SIZE, 64
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(quick(folder, checkpoint_steps=4), corpus=ToyCorpus())
    torch.set_num_threads(threads)
    speed.PEAK_SIZE = peak_size
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it in which the newest checkpoint is that of step 8."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    states.checkpoints(tmp_path / "run")[0].unlink()
    return tmp_path / "run"


def test_resumed_run_ends_in_the_same_bits(finished, copy):
    outcome = pretrain(quick(copy, checkpoint_steps=4), corpus=ToyCorpus())
    assert outcome.finished
    assert identical(newest(copy), newest(finished))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_newest_checkpoint_falls_back(finished, copy, damage, caplog):
    path = states.checkpoints(copy)[0]
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"truncated": data[:-100], "flipped": data, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        pretrain(quick(copy, checkpoint_steps=4), corpus=ToyCorpus())
    assert "trying the checkpoint before it" in caplog.text
    assert path.name in caplog.text
    assert identical(newest(copy), newest(finished))


def test_only_damaged_checkpoints_are_refused(copy):
    for path in states.checkpoints(copy):
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"none of the .* can be read"):
        pretrain(quick(copy), corpus=ToyCorpus())


def test_finished_run_is_left_alone(finished):
    before = snapshot(finished)
    assert pretrain(quick(finished, checkpoint_steps=4), corpus=ToyCorpus()).finished
    assert snapshot(finished) == before


def test_last_checkpoints_are_kept(tmp_path):
    pretrain(quick(tmp_path, checkpoint_steps=2, keep_last=2), corpus=ToyCorpus())
    assert [p.name for p in states.checkpoints(tmp_path)] == [
        "step-000000012.pt",
        "step-000000010.pt",
    ]
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 48}, "width was 32 and is now 48"),
        ({"mask_ratio": 0.5}, "mask_ratio was 0.75 and is now 0.5"),
        ({"batch": 16, "seed": 1}, "batch was 8 and is now 16; seed was 0 and is now 1"),
        ({"source_weights": {"a": 2.0}}, "source_weights was"),
        ({"steps": 24}, "steps was 12 and is now 24"),
    ],
)
def test_resuming_another_run_is_refused(copy, changes, message):
    before = snapshot(copy)
    with pytest.raises(ValueError, match=message):
        pretrain(quick(copy, **changes), corpus=ToyCorpus())
    assert snapshot(copy) == before


def test_resuming_with_another_corpus_is_refused(copy):
    before = snapshot(copy)
    with pytest.raises(ValueError, match=r"corpus has other content.*fffffff.*now aaaaaa"):
        pretrain(quick(copy), corpus=ToyCorpus(fingerprint="a" * 64))
    assert snapshot(copy) == before


def test_watching_may_change_on_resume(copy, finished):
    settings = quick(copy, pictures=2, log_steps=1, checkpoint_steps=3, keep_last=9, workers=1)
    pretrain(settings, corpus=ToyCorpus())
    assert identical(newest(copy), newest(finished))
    assert (copy / "pictures" / "step-000000012.png").stat().st_size > 10_000


def test_no_resume(copy):
    with pytest.raises(FileExistsError, match=r"run_dir .* holds a run"):
        pretrain(quick(copy), resume=False, corpus=ToyCorpus())


def test_global_random_numbers_are_untouched_and_restored(tmp_path):
    import random

    settings = quick(tmp_path, pictures=1, holdout_crops=4, holdout=0.25)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain(settings, corpus=ToyCorpus())
    assert torch.equal(torch.rand(3), expected)
    saved = states.rng_state()
    drawn = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002
    states.set_rng_state(saved)
    again = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002
    assert torch.equal(drawn[0], again[0])
    assert (drawn[1] == again[1]).all()
    assert drawn[2] == again[2]


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
    before = states.checkpoints(copy)[0].read_bytes()
    settings = quick(copy, max_bad_steps=3)
    with pytest.raises(TrainingDiverged, match=r"3 steps in a row.*step-000000008\.pt.*base_lr"):
        pretrain(settings, corpus=ToyCorpus(poisoned=(0, 1, 2, 3)))
    assert states.checkpoints(copy)[0].read_bytes() == before


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
    from hear_msm_mae.pretrain.settings import load_recipe

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


# ---------------------------------------------------------------------------------------------
# In and out
# ---------------------------------------------------------------------------------------------
def test_export_is_what_load_model_takes(finished, tmp_path):
    path = export(finished, tmp_path / "whole.safetensors")
    model = hear_msm_mae.load_model(str(path))
    trained = newest(finished).model
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, trained[f"encoder.{name}"])
    assert (model.config.norm_mean, model.config.norm_std) == (-8.0, 4.0)
    assert hear_msm_mae.get_scene_embeddings(torch.zeros(1, 16000), model).isfinite().all()
    assert load_checkpoint(path).has_decoder
    small = export(finished, tmp_path / "small.safetensors", encoder_only=True, half=True)
    assert not load_checkpoint(small).has_decoder
    assert os.path.getsize(small) < 0.6 * os.path.getsize(path)


def test_export_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoints"):
        export(tmp_path, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors"):
        export(tmp_path, tmp_path / "x.pt")


@pytest.mark.parametrize("data_seed", [None, 1])
def test_start_from_weights(finished, tmp_path, caplog, data_seed):
    path = export(finished, tmp_path / "start.safetensors")
    settings = quick(
        tmp_path / "run", init_from=str(path), steps=1, base_lr=0.0, data_seed=data_seed
    )
    pretrain(settings, corpus=ToyCorpus())
    assert ("data_seed=N draws others" in caplog.text) is (data_seed is None)
    expected = newest(finished).model
    assert all(torch.equal(v, expected[k]) for k, v in newest(tmp_path / "run").model.items())


def test_start_from_weights_of_other_sizes_is_refused(finished, tmp_path):
    path = export(finished, tmp_path / "start.safetensors")
    settings = quick(tmp_path / "run", init_from=str(path), width=64)
    with pytest.raises(ValueError, match="init_from"):
        pretrain(settings, corpus=ToyCorpus())
    assert not (tmp_path / "run").exists()


def test_missing_corpus_and_other_mel_bins_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        pretrain(quick(tmp_path / "run", corpus=str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"n_mels is 80, but the corpus .* 64 mel bins"):
        pretrain(quick(tmp_path / "run"), corpus=ToyCorpus(n_mels=64))
    assert not (tmp_path / "run").exists()
