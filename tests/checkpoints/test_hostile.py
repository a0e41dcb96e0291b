"""Weights that name absurd sizes, unpack to gigabytes or hold no usable numbers are refused.

None of these tests measures time or memory: what they guard against takes minutes, or all memory.
"""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pth_files import ARGS
from safetensors import safe_open
from safetensors.torch import save_file

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints import native, pickles
from hear_msm_mae.checkpoints.foreign import load_any
from hear_msm_mae.checkpoints.layout import DECODER, ENCODER, expected_shapes
from hear_msm_mae.checkpoints.native import Checkpoint, load_checkpoint, save_checkpoint
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.mae import Decoder


def refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{reason}") as error:
        load_model(path)
    assert "\n" not in str(error.value)


def with_config(tiny_file: Path, path: Path, text: str) -> Path:
    """The tiny weights with another configuration, as text."""
    with safe_open(tiny_file, framework="pt") as file:
        metadata = file.metadata() | {"config": text}
    save_file(load_checkpoint(tiny_file).tensors, path, metadata=metadata)
    return path


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(width=32, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2),
        ModelConfig(
            n_mels=40,
            patch_mels=8,
            patch_frames=4,
            width=48,
            depth=3,
            heads=3,
            mlp_ratio=2.7,
            cls_token=False,
            decoder_width=24,
            decoder_depth=2,
            decoder_heads=1,
        ),
    ],
)
@pytest.mark.parametrize(("part", "module"), [(ENCODER, Encoder), (DECODER, Decoder)])
def test_expected_shapes_are_those_of_the_modules(config, part, module):
    expected = dict(expected_shapes(part, config))
    assert expected == {k: tuple(v.shape) for k, v in module(config).state_dict().items()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 10**9}, r"encoder\.blocks\.2\.norm1\.weight should be \(32,\), is absent"),
        ({"depth": 1}, r"encoder\.blocks\.1\.\S* should be absent, is \("),
        ({"width": 4 * 10**5}, r"patch_embed\.weight should be \(400000, 256\), is \(32, 256\)"),
        ({"width": 4 * 10**400}, "encoder.patch_embed.weight should be"),
        ({"n_mels": 16 * 10**8}, "n_mels must be between 1 and 1024"),
        ({"unit_frames": 16 * 10**8}, "unit_frames .* is too long"),
        ({"unit_frames": 10**9, "patch_frames": 10**9}, "encoder.patch_embed.weight should be"),
        ({"mlp_ratio": 1e300}, "mlp_ratio must be between"),
        ({"mlp_ratio": 900.0}, r"mlp\.fc1\.weight should be \(28800, 32\), is \(128, 32\)"),
        ({"decoder_depth": 10**9}, r"decoder\.blocks\.1\.norm1\.weight .* is absent"),
        ({"decoder_width": 2 * 10**9}, r"decoder\.embed\.weight should be"),
        ({"norm_std": 1e-40}, "norm_std must be between"),
        ({"norm_mean": 10**400}, "norm_mean must be between"),
        ({"embedding_scale": 1e308}, "embedding_scale must be between"),
    ],
)
def test_a_configuration_that_the_tensors_do_not_have(
    tiny_file, tiny_config, tmp_path, change, reason
):
    values = json.loads(tiny_config.to_json()) | change
    refused(with_config(tiny_file, tmp_path / "big.safetensors", json.dumps(values)), reason)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"width": 1%s}' % ("0" * 5000)]
)
def test_a_configuration_that_python_cannot_parse(tiny_file, tmp_path, text):
    refused(with_config(tiny_file, tmp_path / "deep.safetensors", text), "is not JSON")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blocks.1000000000.norm1.bias": torch.zeros(64)}, r"blocks\.1\..* is absent"),
        ({"pos_embed": torch.zeros(1, 1, 1).expand(1, 10**12, 64)}, "'pos_embed' .* expanded"),
        ({"norm.weight": torch.zeros(1).expand(10**12)}, "'norm.weight' .* expanded"),
        ({"mask_token": torch.zeros(1, 1, 1).expand(1, 1, 10**12)}, "'mask_token' .* expanded"),
        ({"norm_stats": torch.zeros(1).expand(10**12)}, "'norm_stats' .* expanded"),
        ({"norm_stats": torch.zeros(2, device="meta")}, "'norm_stats' is on the meta device"),
        ({"norm.weight": torch.zeros(64, device="meta")}, "'norm.weight' is on the meta device"),
        ({"norm.weight": torch.zeros(64).to_sparse()}, "'norm.weight' is sparse"),
        ({"norm.weight": torch.zeros(0)}, "number of heads"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_tensors_without_values(state, save, change, reason):
    refused(save({"model": state | change}), reason)


def test_many_tensors_with_one_memory_are_refused(state, save):
    """A file of some megabytes could name blocks without end."""
    names = [name for name in state if name.startswith("blocks.0.")]
    copies = {n.replace(".0.", f".{i}.", 1): state[n] for i in range(1, 100) for n in names}
    refused(save({"model": state | copies}), "the tensors share their values")


def test_a_stride_of_zero_is_refused_in_the_old_format_too(state, save):
    expanded = state | {"pos_embed": torch.zeros(1, 1, 1).expand(1, 10**12, 64)}
    refused(save({"model": expanded}, _use_new_zipfile_serialization=False), "expanded")


# ---------------------------------------------------------------------------------------------
# Archives
# ---------------------------------------------------------------------------------------------
def test_a_compressed_archive_is_refused(state, save, tmp_path):
    """Sixty-four megabytes of zeros in 64 kilobytes."""
    bomb = tmp_path / "bomb.pth"
    big = state | {"blocks.1.mlp.fc1.weight": torch.zeros(2**24)}
    with (
        zipfile.ZipFile(save({"model": big})) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 2**20
    refused(bomb, "archive is compressed")


def test_entries_that_overlap_are_refused(state, save):
    path = save({"model": state})
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        for i in range(100):
            again = copy.copy(largest)
            again.filename = f"checkpoint/data/more{i}"
            archive.filelist.append(again)
        archive._didModify = True  # the directory is written anew when it closes
    refused(path, "archive names more bytes than the file has")


# ---------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3e38, -2e4])
@pytest.mark.parametrize("name", ["encoder.blocks.1.mlp.fc2.bias", "decoder.norm.weight"])
def test_weights_that_give_nan_are_named(tiny_checkpoint, tmp_path, name, value):
    tensors = {k: v.clone() for k, v in tiny_checkpoint.tensors.items()}
    tensors[name][3] = value
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(tiny_checkpoint.config, tensors))
    refused(path, f"'{re.escape(name)}' has values from .*expected finite values")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(float("nan"), torch.float32), (3e38, torch.bfloat16), (1e300, torch.float64)],
)
@pytest.mark.parametrize("name", ["blocks.0.attn.q_bias", "decoder_pred.bias", "pos_embed"])
def test_weights_of_pth_files_that_give_nan_are_named(state, save, name, dtype, value):
    changed = state[name].to(dtype)
    changed.view(-1)[3] = value
    refused(save({"model": state | {name: changed}}), f"'{name}' has values from")


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_tensors_of_other_types_are_named(tiny_file, tiny_checkpoint, state, save, tmp_path, dtype):
    name = "encoder.blocks.0.norm1.bias"
    tensors = tiny_checkpoint.tensors | {name: torch.zeros(32, dtype=dtype)}
    path = tmp_path / "model.safetensors"
    with safe_open(tiny_file, framework="pt") as file:
        save_file(tensors, path, metadata=file.metadata())
    refused(path, f"'{name}' is {dtype}, expected floating-point")
    name = "blocks.0.norm1.bias"
    path = save({"model": state | {name: torch.zeros(64, dtype=dtype)}})
    refused(path, f"'{name}' is {dtype}, expected floating-point")


@pytest.mark.parametrize("make", [torch.ones, lambda shape: torch.randn(shape).sign()])
def test_the_largest_weights_that_are_accepted_give_finite_embeddings(tiny_config, tmp_path, make):
    tensors = {
        f"encoder.{name}": make(shape) * 1e3
        for name, shape in expected_shapes(ENCODER, tiny_config)
    }
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(tiny_config, tensors))
    audio = torch.rand(2, 40_000) - 0.5
    assert get_scene_embeddings(audio, load_model(path)).isfinite().all()


# ---------------------------------------------------------------------------------------------
# Global state
# ---------------------------------------------------------------------------------------------
@pytest.fixture
def set_default_dtype():
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("decoder", ["1d", "2d"])
def test_another_default_dtype_changes_nothing(
    reference_state, save, tmp_path, set_default_dtype, decoder, dtype
):
    """Statistics, tables, tensors: what is read and what is written."""
    path = save(
        {"model": reference_state(decoder=decoder), "args": ARGS, "norm_stats": [-6.3, 3.7]}
    )
    expected, written = load_any(path), tmp_path / "float32.safetensors"
    save_checkpoint(written, expected)
    set_default_dtype(dtype)
    converted = load_any(path)
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, converted)
    assert again.read_bytes() == written.read_bytes()
    for checkpoint in (converted, load_checkpoint(again)):
        assert checkpoint.config == expected.config
        assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float32}
        assert all(torch.equal(t, expected.tensors[n]) for n, t in checkpoint.tensors.items())


def test_threads_can_load_at_once(state, save, monkeypatch):
    """torch's list of allowed classes is shared: one thread must not empty it for another."""
    path = save({"model": state, "args": ARGS})
    load, started = torch.load, []

    def slow(*arguments: Any, **options: Any) -> Any:
        started.append(None)
        time.sleep(0.1 * len(started))
        return load(*arguments, **options)

    monkeypatch.setattr(pickles.torch, "load", slow)
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(load_any(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 3


def test_ctrl_c_while_tensors_are_read_is_not_taken_for_damage(tiny_file, monkeypatch):
    """In compiled code, a KeyboardInterrupt comes out as an error of the file."""

    class Interrupted:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.file = safe_open(*arguments, **options)

        def __enter__(self) -> Any:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            except KeyboardInterrupt as error:
                raise native.SafetensorError("storage of another shape") from error
            return self.file.__enter__()

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

    monkeypatch.setattr(native, "safe_open", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_checkpoint(tiny_file)
