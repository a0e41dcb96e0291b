"""Refining weights: the mean of weights by its definition, and all runs end to end."""

import pytest
import torch
from toy_corpus import QUICK, ToyCorpus

from hear_msm_mae import load_model
from hear_msm_mae.checkpoints.native import Checkpoint, load_checkpoint
from hear_msm_mae.pretrain.export import export
from hear_msm_mae.pretrain.train import Outcome
from weights import experiments, refine

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
    pytest.mark.usefixtures("small_and_alone"),
]

HOW = "samples=null", "norm_pixels=false", "source_weights={}"


def filled(checkpoint, value, decoder=True):
    names = [name for name in checkpoint.tensors if decoder or name.startswith("encoder.")]
    filling = {name: torch.full_like(checkpoint.tensors[name], value) for name in names}
    return Checkpoint(checkpoint.config, filling)


def test_mean_is_weighted_and_the_decoder_is_that_of_the_files_with_one(finished, tmp_path):
    model = load_checkpoint(export(finished, tmp_path / "toy.safetensors"))
    parts = (filled(model, 1.0), 0.5), (filled(model, 5.0, decoder=False), 0.2)
    mean = refine.mean_of([*parts, (filled(model, 2.0), 0.3)])
    assert mean.config == model.config
    assert mean.tensors.keys() == model.tensors.keys()
    for name, tensor in mean.tensors.items():
        expected = 2.1 if name.startswith("encoder.") else (0.5 + 0.6) / 0.8
        torch.testing.assert_close(tensor, torch.full_like(tensor, expected))


def test_mean_of_other_sizes_is_refused(finished, tmp_path):
    model = load_checkpoint(export(finished, tmp_path / "toy.safetensors"))
    other = filled(model, 1.0)
    other.tensors["encoder.norm.weight"] = torch.ones(7)
    with pytest.raises(ValueError, match=r"encoder\.norm\.weight has different shapes"):
        refine.mean_of([(model, 0.5), (other, 0.5)])
    shallow = filled(model, 1.0)
    del shallow.tensors["encoder.blocks.1.norm1.weight"]
    for parts in ((model, shallow), (shallow, model)):
        with pytest.raises(ValueError, match="different numbers of blocks"):
            refine.mean_of([(part, 0.5) for part in parts])


def test_all_runs_and_their_mean(finished, tmp_path, monkeypatch):
    start = export(finished, tmp_path / "start.safetensors")
    out = tmp_path / "out.safetensors"
    train = refine.pretrain
    monkeypatch.setattr(refine, "pretrain", lambda settings: train(settings, corpus=ToyCorpus()))
    sizes = [f"{name}={value}" for name, value in QUICK.items() if name != "base_lr"]
    refine.refine("unused", start, out, [*sizes, *HOW])
    runs = [load_checkpoint(f"{out}.runs/{name}.safetensors") for name in refine.RUNS]
    parts = [load_checkpoint(start), *runs]
    assert [part.has_decoder for part in parts] == [True, False, False, True]
    name = "encoder.blocks.0.attn.qkv.weight"
    assert len({part.tensors[name].sum().item() for part in parts}) == 4
    shares = refine.PARTS.values()
    expected = sum(s * x.tensors[name] for s, x in zip(shares, parts, strict=True))
    found = load_checkpoint(out).tensors[name].float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)  # float16
    load_model(str(out))


def test_a_run_that_a_signal_stopped_is_not_taken_for_complete(finished, tmp_path, monkeypatch):
    start = export(finished, tmp_path / "start.safetensors")
    monkeypatch.setattr(refine, "pretrain", lambda settings: Outcome(1, 10, signal=2))
    with pytest.raises(SystemExit, match="130"):
        refine.refine("unused", start, tmp_path / "out.safetensors", [])
    with pytest.raises(SystemExit, match="130"):
        experiments.run_all("unused", tmp_path, ["base"], [])
    assert [x.name for x in tmp_path.rglob("*.safetensors")] == ["start.safetensors"]
