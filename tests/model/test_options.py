"""Options of `load_model`: every value that is valid, and messages about those that are not."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.options import Options, resolve_options

BASE = ModelConfig()  # 12 blocks, patches of 160 ms, 13 columns per unit


def test_defaults():
    assert resolve_options(BASE, {}) == Options(
        mode="default",
        precision="float32",
        normalization="stored",
        timestamp_hop_ms=40,
        layers=(11,),
        scene_pooling="mean",
        scale=1.0,
    )


def test_defaults_of_paper_mode():
    options = resolve_options(BASE, {"mode": "paper"})
    assert options.normalization == "batch"
    assert options.timestamp_hop_ms == 160


@pytest.mark.parametrize(
    ("patch_frames", "hop"), [(1, 10), (2, 20), (4, 40), (6, 30), (8, 40), (5, 10), (16, 40)]
)
def test_default_hop_is_the_largest_up_to_40_ms(patch_frames, hop):
    config = ModelConfig(patch_frames=patch_frames, unit_frames=60 * patch_frames)
    assert resolve_options(config, {}).timestamp_hop_ms == hop


@pytest.mark.parametrize("mode", ["default", "paper"])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("precision", "float32", "float32"),
        ("precision", "bfloat16", "bfloat16"),
        ("normalization", "stored", "stored"),
        ("normalization", "batch", "batch"),
        ("normalization", (-6, 4), (-6.0, 4.0)),
        ("normalization", [-6.5, 3.25], (-6.5, 3.25)),
    ],
)
def test_valid_values(name, value, expected, mode):
    options = resolve_options(BASE, {name: value, "mode": mode})
    assert (getattr(options, name), options.mode) == (expected, mode)


@pytest.mark.parametrize("value", [10, 20, 40, 80, 160, 40.0])
def test_timestamp_hop_ms(value):
    hop = resolve_options(BASE, {"timestamp_hop_ms": value}).timestamp_hop_ms
    assert hop == value
    assert type(hop) is int


@pytest.mark.parametrize(
    ("value", "layers"),
    [
        ("last", (11,)),
        (-1, (11,)),
        (11, (11,)),
        (0, (0,)),
        (-12, (0,)),
        ([5], (5,)),
        ((3, 7, -1), (3, 7, 11)),
        ([11, 0], (11, 0)),  # concatenated in the order given
    ],
)
def test_layer(value, layers):
    assert resolve_options(BASE, {"layer": value}).layers == layers


def test_weights_may_say_which_layer_is_the_default():
    scaled = dataclasses.replace(BASE, embedding_scale=0.5)
    assert resolve_options(scaled, {}).scale == 0.5
    config = dataclasses.replace(scaled, layer=-4, embedding_scale=0.25)
    for given, layers, scale in (
        ({}, (8,), 0.25),
        ({"layer": 8}, (8,), 1),  # the weights' factor is that of their own layer
        ({"layer": "last"}, (11,), 1),
        ({"layer": [0, 2]}, (0, 2), 1),
        ({"mode": "paper"}, (11,), 1),
    ):
        options = resolve_options(config, given)
        assert (options.layers, options.scale) == (layers, scale)


@pytest.mark.parametrize(
    ("name", "values", "valid"),
    [
        ("mode", ["Paper", "", 1, ["paper"]], ["default", "paper"]),
        ("precision", ["float16", "bf16", torch.bfloat16], ["float32", "bfloat16", "auto"]),
        (
            "normalization",
            ["none", 4.2, [], [1], [1, 2, 3], [0, 0], [0, -1], ["0", "1"], [True, True]],
            ["stored", "batch", "(mean, std)"],
        ),
        ("normalization", [[float("nan"), 1], [0, float("inf")]], ["finite", "std > 0"]),
        ("timestamp_hop_ms", [0, -40, 30, 15, 320, 40.5, "40", True], ["10, 20, 40, 80, 160"]),
        (
            "layer",
            [12, -13, 1.0, "first", "11", True, [], [12], ["last"], [[1]], np.array([1.0, 2.0])],
            ["'last'", "-12 to 11", "list"],
        ),
    ],
)
def test_invalid_values_are_refused_with_the_valid_ones(name, values, valid):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}") as error:
            resolve_options(BASE, {name: value})
        message = str(error.value)
        assert repr(value) in message
        for expected in valid:
            assert expected in message


def test_paper_mode_has_no_choice_of_the_hop():
    with pytest.raises(ValueError, match=r"160.*in paper mode"):
        resolve_options(BASE, {"mode": "paper", "timestamp_hop_ms": 40})


def test_unknown_options_are_refused_with_the_valid_ones(tiny_file):
    with pytest.raises(ValueError, match=r"unknown option\(s\) \['Mode', 'hop'\]") as error:
        load_model(tiny_file, hop=40, Mode="paper")
    for field in dataclasses.fields(Options):
        assert field.name.removesuffix("s") in str(error.value) or field.name == "scale"


def test_options_arrive_as_json(tiny_file):
    """hear-eval-kit passes what json.loads makes of --model-options."""
    text = """{"mode": "default", "timestamp_hop_ms": 20, "normalization": [-6, 4],
               "precision": "float32", "layer": [0, -1]}"""
    options = load_model(str(tiny_file), **json.loads(text)).options
    assert options == Options("default", "float32", (-6.0, 4.0), 20, (0, 1), "mean", 1.0)
    assert json.loads('{"timestamp_hop_ms": null}')["timestamp_hop_ms"] is None
    assert load_model(tiny_file, timestamp_hop_ms=None).options.timestamp_hop_ms == 40


# ---------------------------------------------------------------------------------------------
# What the options do
# ---------------------------------------------------------------------------------------------
@pytest.fixture
def audio():
    return torch.randn(2, 40000) * 0.1


def test_a_pair_replaces_the_stored_statistics(tiny_file, audio):
    stored = load_model(tiny_file)
    mean, std = stored.config.norm_mean, stored.config.norm_std
    same = load_model(tiny_file, normalization=(mean, std))
    other = load_model(tiny_file, normalization=(mean, 2 * std))
    expected = get_scene_embeddings(audio, stored)
    assert torch.equal(get_scene_embeddings(audio, same), expected)
    assert not torch.allclose(get_scene_embeddings(audio, other), expected)


def test_batch_statistics_do_not_hear_the_level(tiny_file):
    """Their purpose: a constant factor on all clips is a constant in the log, which the mean takes.

    True as long as the power stays far above the constant under the logarithm.
    """
    audio = torch.randn(2, 40000)
    batch = load_model(tiny_file, normalization="batch")
    stored = load_model(tiny_file)

    def change(model):
        return (get_scene_embeddings(audio, model) - get_scene_embeddings(audio / 2, model)).norm()

    assert change(batch) < 0.05 * change(stored)
