"""Conversion of files that are no checkpoints or would run code, and what pickles may hold."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pth_files import ARGS

from hear_msm_mae import load_model
from hear_msm_mae.checkpoints.foreign import load_any


# ---------------------------------------------------------------------------------------------
# Files that are something else
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list, expected a dictionary"),
        (torch.zeros(3), "holds a Tensor, expected a dictionary"),
        ({"model": [1]}, "'model' is a list, expected a state dictionary"),
        ({}, "not an MSM-MAE checkpoint: 'patch_embed.proj.weight' is missing"),
        ({"model": {"conv1.weight": torch.zeros(3, 3)}}, "not an MSM-MAE checkpoint"),
    ],
)
def test_other_content_is_refused(save, content, reason):
    with pytest.raises(ValueError, match=rf"checkpoint\.pth.*{reason}"):
        load_any(save(content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dist_token": torch.zeros(1, 1, 64)}, r"encoder\.dist_token should be absent"),
        ({"norm_pre.bias": torch.zeros(64)}, r"encoder\.norm_pre\.bias should be absent"),
        ({"blocks.0.attn.gamma": torch.zeros(64)}, r"blocks\.0\.attn\.gamma should be absent"),
        ({"blocks.x.bias": torch.zeros(64)}, r"blocks\.x\.bias should be absent"),
        ({"blocks.0.norm1.bias": None}, r"blocks\.0\.norm1\.bias should be \(64,\), is absent"),
        ({"blocks.0.mlp.fc2.bias": torch.zeros(63)}, r"should be \(64,\), is \(63,\)"),
        ({"blocks.2.norm1.bias": torch.zeros(64)}, r"blocks\.1\..* is absent"),
        ({"blocks.0.attn.qkv.bias": torch.zeros(1)}, "q_bias should be"),
        ({"norm.weight": None}, "'norm.weight' is missing"),
        ({"norm.weight": torch.tensor(1.0)}, "misshapen"),
        ({"patch_embed.proj.weight": torch.zeros(64, 256)}, "misshapen"),
        ({"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)}, r"\(64, 256\), is \(64, 768\)"),
        ({"cls_token": torch.zeros(1, 2, 64)}, "cls_token should be"),
    ],
    ids=str,
)
def test_other_tensors_are_named(reference_state, save, change, reason):
    state = reference_state(decoder=None) | change
    path = save({"model": {k: v for k, v in state.items() if v is not None}})
    with pytest.raises(ValueError, match=rf"checkpoint\.pth: .*{reason}"):
        load_any(path)


@pytest.mark.parametrize(
    "table",
    [
        torch.randn(1, 66, 64),  # trained
        torch.zeros(1, 66, 64),
        torch.zeros(66),
        torch.tensor(1.0),
        torch.zeros(1, 66, 32),
        torch.zeros(1, 1, 64),
    ],
    ids=lambda table: "x".join(map(str, table.shape)),
)
@pytest.mark.parametrize("name", [None, "80x208p16x16"])
def test_other_position_tables_are_refused(state, save, table, name):
    path = save({"model": state | {"pos_embed": table}})
    with pytest.raises(ValueError, match=r"pos_embed is not a fixed.*trained.*not supported"):
        load_any(path, name)


def test_a_slightly_trained_table_is_refused(state, save):
    table = state["pos_embed"] + 0.02 * torch.randn(1, 66, 64)
    with pytest.raises(ValueError, match="pos_embed"):
        load_any(save({"model": state | {"pos_embed": table}}))


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_refused(state, save, zipped):
    path = save({"model": state, "args": ARGS}, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for size in (2, 4, 15, 16, 19, 40, 100, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"checkpoint\.pth (is truncated|refused)") as error:
            load_any(path)
        assert "()" not in str(error.value)  # a reason is given


def test_damaged_pickles_are_refused(state, save):
    """Whatever byte is wrong, the error is a ValueError that names the file (or the file loads)."""
    path = save({"model": state, "args": ARGS}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refusals = harmless = 0
    for place in generator.integers(0, 4000, 100):
        damaged = bytearray(content)
        damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_any(path)
        except ValueError as error:
            refusals += str(path) in str(error)
        else:
            harmless += 1  # a bit of a number
    assert refusals + harmless == 100
    assert refusals > 50


@pytest.mark.parametrize("text", ["PK is how zip files start", "PKPKPKPK" * 99])
def test_text_that_starts_like_an_archive_is_refused(tmp_path, text):
    path = tmp_path / "model.pth"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"model\.pth (is truncated|refused)"):
        load_model(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"model": {}}, protocol=protocol))
        with pytest.raises(ValueError, match=r"model\.pth (is truncated|refused)"):
            load_model(path)


# ---------------------------------------------------------------------------------------------
# Safety
# ---------------------------------------------------------------------------------------------
class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "args", "state", "whole"])
def test_a_pickle_that_would_run_a_command_does_not(state, save, tmp_path, zipped, place):
    marker = tmp_path / "ran"
    call = Call(os.system, f"echo > {marker}")
    content = {
        "beside": {"model": state, "extra": call},
        "args": {"model": state, "args": argparse.Namespace(hook=call)},
        "state": {"model": state | {"norm_stats": call}},
        "whole": call,
    }[place]
    path = save(content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"checkpoint\.pth refused.*(posix|nt)\.system.*run code"):
        load_model(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file is indeed dangerous
    assert marker.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "wanted"),
    [
        (eval, ("1",), "eval"),
        (subprocess.Popen, (["true"],), "Popen"),
        (getattr, ("", "upper"), "getattr"),
        (np.load, ("x",), "load"),
        (torch.load, ("x",), r"torch\.serialization\.load"),
    ],
)
def test_the_message_names_what_the_pickle_wanted(state, save, function, arguments, wanted):
    path = save({"model": state, "extra": Call(function, *arguments)})
    with pytest.raises(ValueError, match=rf"refused: the pickle wants to load \S*{wanted},"):
        load_any(path)


def test_a_class_of_the_training_code_is_refused_by_name(state, save):
    with pytest.raises(ValueError, match=r"wants to load test_foreign_refused\.Call"):
        load_any(save({"model": state, "args": Call}))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_in_the_plain_format_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "model.pth"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Call(os.system, f"echo > {marker}"), protocol=protocol))
        with pytest.raises(ValueError, match=r"model\.pth"):
            load_model(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        Path("runs/out"),
        np.float64(0.75),
        np.float32(0.75),
        np.float16(0.75),
        np.int64(3),
        np.uint8(3),
        np.bool_(True),
        np.str_("base"),
        np.arange(3.0),
        np.array([True]),
        np.dtype("float32"),
        torch.float32,
        torch.device("cpu"),
        {"a", "b"},
        b"bytes",
        1j,
        None,
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_plain_values_in_args_are_accepted(state, save, value):
    args = argparse.Namespace(value=value, nested=argparse.Namespace(values=[value]))
    assert load_any(save({"model": state, "args": args})).config.width == 64


def rename_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("home", ["core", "_core"])
def test_numpy_of_either_version(state, save, home):
    """NumPy 2 renamed the module that pickles name."""
    args = argparse.Namespace(rate=np.float64(0.5), sizes=np.array([1, 2]))
    content = {"model": state, "args": args, "norm_stats": np.array([-6.5, 3.25])}
    path = save(content, _use_new_zipfile_serialization=False)
    ours = b"numpy._core" if b"numpy._core" in path.read_bytes() else b"numpy.core"
    rename_in_pickle(path, ours + b".multiarray", f"numpy.{home}.multiarray".encode())
    assert load_any(path).config.norm_std == 3.25


@pytest.mark.parametrize(
    "where", ["pathlib\nPosixPath", "pathlib\nWindowsPath", "pathlib._local\nPosixPath"]
)
def test_paths_of_any_system_and_python(state, save, where):
    args = argparse.Namespace(output=Path("out"))
    path = save({"model": state, "args": args}, _use_new_zipfile_serialization=False)
    module, name = type(Path()).__module__, type(Path()).__name__
    rename_in_pickle(path, f"c{module}\n{name}\n".encode(), f"c{where}\n".encode())
    assert load_any(path).config.width == 64


def test_nothing_stays_allowed_after_loading(state, save):
    before = set(torch.serialization.get_safe_globals())
    load_any(save({"model": state, "args": ARGS}))
    assert set(torch.serialization.get_safe_globals()) == before
