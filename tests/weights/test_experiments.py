"""Experiments: runs that differ in one setting, each from random weights."""

import pytest
from toy_corpus import QUICK, ToyCorpus

from hear_msm_mae import load_model
from hear_msm_mae.pretrain.parsing import load_recipe
from weights import experiments, refine

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
    pytest.mark.usefixtures("small_and_alone"),
]


def test_runs_differ_in_their_setting_and_are_made_once(tmp_path, monkeypatch):
    settings, train = [], refine.pretrain

    def pretrain(wanted):
        settings.append(wanted)
        return train(wanted, corpus=ToyCorpus())

    monkeypatch.setattr(refine, "pretrain", pretrain)
    sizes = {**QUICK, "minutes": "null", "source_weights": "{}"}
    words = [f"{name}={value}" for name, value in sizes.items() if name != "decoder_depth"]
    names = "base", "decoder-192x4", "patches-80x4"
    files = experiments.run_all("unused", tmp_path, names, words)
    assert [x.model.decoder_depth for x in settings] == [2, 4, 2]
    assert [load_model(str(x)).timestamp_embedding_size for x in files] == [5 * 32, 5 * 32, 32]
    assert experiments.run_all("unused", tmp_path, names, words) == files
    assert len(settings) == 3


def test_every_run_has_valid_settings():
    for name, own in experiments.RUNS.items():
        settings = load_recipe("small-gpu", [*experiments.COMMON, *own])
        assert settings.minutes == 15, name
