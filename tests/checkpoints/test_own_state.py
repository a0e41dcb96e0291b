"""Models of this package saved with torch.save: refused with advice that works."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints.foreign import load_any
from hear_msm_mae.mae import MaskedAutoencoder

AUDIO = torch.sin(torch.arange(20000) / 9)[None] * 0.3


@pytest.mark.parametrize(
    "make",
    [
        lambda model: model.state_dict(),
        lambda model: {"model": model.state_dict()},
        lambda model: {"state_dict": model.state_dict()},
        lambda model: nn.DataParallel(model).state_dict(),
        lambda model: nn.ModuleDict({"model": model, "head": nn.Linear(3, 3)}).state_dict(),
        lambda model: model.encoder.state_dict(),
    ],
    ids=["model", "in-model", "in-state_dict", "parallel", "with-head", "encoder"],
)
def test_a_state_dictionary_of_a_model_is_recognised(tiny_file, save, make):
    path = save(make(load_model(tiny_file)))
    with pytest.raises(
        ValueError,
        match=r"checkpoint\.pth is a state dictionary of a hear.* holds no configuration .*"
        r"load_state_dict.*model\.save_pretrained\(folder\)",
    ):
        load_model(path)


def test_the_advice_works(tiny_file, save, tmp_path):
    tuned = load_model(tiny_file)
    with torch.no_grad():
        tuned.encoder.norm.bias += 1
    path = save(nn.DataParallel(tuned).state_dict())

    model = load_model(tiny_file)
    state = torch.load(path, weights_only=True)
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    again = load_model(model.save_pretrained(tmp_path / "folder"))
    expected = get_scene_embeddings(AUDIO, tuned)
    assert torch.equal(get_scene_embeddings(AUDIO, again), expected)
    assert not torch.equal(get_scene_embeddings(AUDIO, load_model(tiny_file)), expected)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_a_whole_model_is_refused_with_advice(tiny_file, save, wrap):
    path = save(wrap(load_model(tiny_file)))
    with pytest.raises(ValueError, match=r"refused: .*could run code; .*model\.save_pretrained"):
        load_model(path)


def test_a_training_checkpoint_is_recognised(tiny_config, save):
    path = save({"model": MaskedAutoencoder(tiny_config).state_dict(), "optimizer": {}})
    with pytest.raises(
        ValueError, match=r"is a training checkpoint of hear_msm_mae.*export RUN_DIR"
    ):
        load_model(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module."])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_prefixes_of_wrappers_in_other_checkpoints(state, save, prefix, key):
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    checkpoint = load_any(save({key: wrapped} if key else wrapped))
    expected = load_any(save({"model": state}))
    assert checkpoint.config == expected.config
    assert checkpoint.tensors.keys() == expected.tensors.keys()


def test_two_models_in_one_dictionary_are_refused(state, save):
    with pytest.raises(ValueError, match="holds two models"):
        load_any(save(state | {f"module.{name}": tensor for name, tensor in state.items()}))
