"""Conversion of `.pth` checkpoints: sizes by tensors and names, statistics, `norm_pix_loss`."""

from __future__ import annotations

import argparse
import logging

import numpy as np
import pytest
import torch
from pth_files import ARGS, assert_same_model

from hear_msm_mae.checkpoints.foreign import load_any


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("patch", "grid", "name"),
    [
        ((16, 16), (5, 13), "80x208p16x16"),
        ((16, 16), (5, 19), "80x304p16x16"),
        ((16, 4), (5, 52), "80x208p16x4"),
        ((8, 16), (10, 6), "80x96p8x16"),
        ((80, 4), (1, 24), "80x96p80x4"),
        ((16, 16), (13, 5), "208x80p16x16"),
        ((8, 8), (4, 4), "32x32p8x8"),
    ],
)
@pytest.mark.parametrize("cls", [True, False])
def test_sizes_come_from_the_tensors(reference_state, save, patch, grid, name, cls):
    state = reference_state(patch=patch, grid=grid, cls=cls, decoder=None)
    assert load_any(save({"model": state})).config.name == name


def test_depth_heads_and_mlp_come_from_the_tensors(reference_state, save):
    path = save({"model": reference_state(width=192, depth=3, mlp_ratio=2.5, decoder=None)})
    config = load_any(path).config
    assert (config.width, config.depth, config.heads, config.mlp_ratio) == (192, 3, 3, 2.5)


def test_an_mlp_of_any_size_survives_the_ratio(reference_state, save):
    state = reference_state(width=704, mlp_ratio=960 / 704, decoder=None)
    assert int(704 * (960 / 704)) == 959  # the float is a hair too small
    assert_same_model(save({"model": state}), state, heads=11)


@pytest.fixture
def open_state(reference_state):
    """Without position table, the unit is open."""
    return {k: v for k, v in reference_state(decoder=None).items() if k != "pos_embed"}


@pytest.mark.parametrize(
    "file",
    [
        "msm_mae_80x304p16x16.pth",
        "80x304p16x16/checkpoint-99.pth",
        "80x208p16x16/80x304p16x16.pth",  # the file's own name decides
    ],
)
def test_sizes_come_from_the_file_or_folder_name(open_state, save, file):
    assert load_any(save({"model": open_state}, file)).config.name == "80x304p16x16"


def test_sizes_come_from_the_given_name(open_state, save):
    path = save({"model": open_state}, "80x208p16x16.pth")
    assert load_any(path, "80x304p16x16").config.name == "80x304p16x16"


@pytest.mark.parametrize("file", ["checkpoint.pth", "80x208p16x4.pth"])
def test_open_sizes_ask_for_a_name(open_state, save, file):
    with pytest.raises(ValueError, match=rf"{file}.*unit size open.*--name 80x208p16x16"):
        load_any(save({"model": open_state}, file))


@pytest.mark.parametrize("name", ["80x304p16x16", "80x208p16x8", "208x80p16x16", "81x208p16x16"])
def test_a_given_name_that_contradicts_the_tensors_is_refused(state, save, name):
    with pytest.raises(ValueError, match=f"{name}.* contradicts the tensors.*80x208p16x16"):
        load_any(save({"model": state}), name)


def test_a_name_that_merely_occurs_in_the_path_need_not_fit(state, save):
    assert load_any(save({"model": state}, "80x304p16x16.pth")).config.name == "80x208p16x16"


def test_a_given_name_that_fits_is_fine(state, save):
    assert load_any(save({"model": state}), "80x208p16x16").config.name == "80x208p16x16"


def test_a_given_name_that_is_none_is_refused(state, save):
    with pytest.raises(ValueError, match="'base' is not a model name like 80x208p16x16"):
        load_any(save({"model": state}), "base")


def test_heads_cannot_be_told_from_an_odd_width(reference_state, save):
    with pytest.raises(ValueError, match=r"number of heads.*96"):
        load_any(save({"model": reference_state(width=96, decoder=None)}))


# ---------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("in_state", [True, False])
@pytest.mark.parametrize(
    "stats",
    [
        torch.tensor([-6.5, 3.25]),
        torch.tensor([[-6.5], [3.25]]),
        torch.tensor([-6.5, 3.25], dtype=torch.bfloat16),
        torch.nn.Parameter(torch.tensor([-6.5, 3.25])),
        np.array([-6.5, 3.25]),
        np.array([-6.5, 3.25], dtype=np.float32),
        [-6.5, 3.25],
        (np.float64(-6.5), np.float32(3.25)),
    ],
    ids=lambda stats: type(stats).__name__,
)
def test_statistics_in_any_form(state, save, caplog, stats, in_state):
    content = {"model": state | {"norm_stats": stats}} if in_state else {"model": state}
    config = load_any(save(content if in_state else content | {"norm_stats": stats})).config
    assert (config.norm_mean, config.norm_std) == (-6.5, 3.25)
    assert "norm_stats" not in caplog.text


def test_missing_statistics_are_those_of_audioset_with_a_note(state, save, caplog):
    with caplog.at_level(logging.WARNING):
        config = load_any(save({"model": state})).config
    assert (config.norm_mean, config.norm_std) == (-7.1, 4.2)
    assert "no norm_stats" in caplog.text
    assert "-7.1" in caplog.text
    assert "4.2" in caplog.text


@pytest.mark.parametrize(
    "stats", [[1.0], [1.0, 2.0, 3.0], "mean", {"mean": 0}, [0.0, -1.0], [float("nan"), 1.0]]
)
def test_impossible_statistics_are_refused(state, save, stats):
    with pytest.raises(ValueError, match=r"checkpoint\.pth: norm_(stats|mean|std)"):
        load_any(save({"model": state, "norm_stats": stats}))


# ---------------------------------------------------------------------------------------------
# What the decoder predicts
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [argparse.Namespace, dict])
@pytest.mark.parametrize("value", [True, False, np.bool_(True), 1])
def test_norm_pix_loss_is_read_from_args(state, save, caplog, zipped, kind, value):
    args = kind(lr=1e-4, norm_pix_loss=value)
    path = save({"model": state, "args": args}, _use_new_zipfile_serialization=zipped)
    with caplog.at_level(logging.WARNING):
        assert load_any(path).config.norm_pixels is bool(value)
        assert load_any(path, norm_pixels=not value).config.norm_pixels is not bool(value)
    assert "norm_pix_loss" not in caplog.text


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"args": ARGS},
        {"args": {}},
        {"args": ["norm_pix_loss"]},
        {"args": {"norm_pix_loss": ""}},
    ],
    ids=str,
)
def test_without_norm_pix_loss_a_decoder_is_taken_as_plain_with_a_note(state, save, caplog, beside):
    path = save({"model": state} | beside)
    with caplog.at_level(logging.WARNING):
        assert load_any(path).config.norm_pixels is False
    assert "taken as false" in caplog.text
    assert "--norm-pixels" in caplog.text
    caplog.clear()
    assert load_any(path, norm_pixels=True).config.norm_pixels is True
    assert "norm_pix_loss" not in caplog.text


@pytest.mark.parametrize("args", [None, {"norm_pix_loss": True}])
def test_norm_pix_loss_does_not_matter_without_decoder(reference_state, save, caplog, args):
    path = save({"model": reference_state(decoder=None), "args": args})
    with caplog.at_level(logging.WARNING):
        assert load_any(path).config.norm_pixels is False
    assert "norm_pix_loss" not in caplog.text
