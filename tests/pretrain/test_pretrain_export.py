"""From runs to weights and back: export, init_from; all in this process."""

import os
import subprocess
import sys

import pytest
import torch
from toy_corpus import ToyCorpus, quick
from toy_runs import newest

import hear_msm_mae
from hear_msm_mae.checkpoints.native import load_checkpoint
from hear_msm_mae.pretrain.export import export
from hear_msm_mae.pretrain.train import pretrain

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
    pytest.mark.usefixtures("small_and_alone"),
]


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
    assert small.stat().st_size < 0.6 * path.stat().st_size


def test_export_gives_the_same_bytes_every_time(finished, tmp_path):
    """Also in a new process, because the order of a hash table differs from one to the next."""
    code = "import sys; from hear_msm_mae.pretrain.export import export; export(*sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    path = tmp_path / "there.safetensors"
    command = [sys.executable, "-c", code, str(finished), str(path)]
    subprocess.run(command, check=True, env=environment)
    assert path.read_bytes() == export(finished, tmp_path / "here.safetensors").read_bytes()


def test_exported_layer_is_the_default_of_load_model(finished, tmp_path):
    audio = torch.rand(1, 16000) - 0.5
    path = export(finished, tmp_path / "whole.safetensors", layer=0, embedding_scale=0.25)
    found = hear_msm_mae.get_scene_embeddings(audio, hear_msm_mae.load_model(path))
    last = export(finished, tmp_path / "last.safetensors")
    expected = hear_msm_mae.get_scene_embeddings(audio, hear_msm_mae.load_model(last, layer=0))
    assert torch.equal(found, expected / 4)
    with pytest.raises(ValueError, match="layer must be"):
        export(finished, tmp_path / "none.safetensors", layer=99)
    assert not (tmp_path / "none.safetensors").exists()


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
    assert ("Set data_seed to a new number" in caplog.text) is (data_seed is None)
    expected = newest(finished).model
    assert all(torch.equal(v, expected[k]) for k, v in newest(tmp_path / "run").model.items())


def test_start_from_weights_of_other_sizes_is_refused(finished, tmp_path):
    path = export(finished, tmp_path / "start.safetensors")
    settings = quick(tmp_path / "run", init_from=str(path), width=64)
    with pytest.raises(ValueError, match="init_from"):
        pretrain(settings, corpus=ToyCorpus())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 4}, "heads was 2 and is now 4"),
        ({"patch_mels": 8, "patch_frames": 32}, "patch_mels was 16 and is now 8"),
        ({"norm_pixels": True}, "norm_pixels was False and is now True"),
    ],
)
def test_weights_that_fit_by_their_shapes_alone_are_refused(finished, tmp_path, changes, message):
    path = export(finished, tmp_path / "start.safetensors")
    with pytest.raises(ValueError, match=message):
        pretrain(quick(tmp_path / "run", init_from=str(path), **changes), corpus=ToyCorpus())


def test_other_statistics_than_those_of_the_weights_are_reported(finished, tmp_path, caplog):
    path = export(finished, tmp_path / "start.safetensors")
    for std in (4.1, 5.0):
        caplog.clear()
        settings = quick(tmp_path / f"{std}", init_from=str(path), steps=1)
        pretrain(settings, corpus=ToyCorpus(std=std))
        assert ("statistics of the log-mel values" in caplog.text) is (std == 5.0)
