"""Conversion of `.pth` checkpoints of the reference layout, and pickles that must be refused."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoint import load_checkpoint, save_checkpoint
from hear_msm_mae.convert import load_any
from hear_msm_mae.encoder import Encoder, patchify
from hear_msm_mae.pretrain.mae import Decoder, MaskedAutoencoder, random_mask

ARGS = argparse.Namespace(model="mae_vit_base", lr=1e-4, output_dir="out")


@pytest.fixture
def save(tmp_path):
    """Function that writes an object with torch.save and returns the path."""

    def save(content: Any, name: str = "checkpoint.pth", **how: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path, **how)
        return path

    return save


@pytest.fixture
def state(reference_state):
    return reference_state()


def plain_tokens(state: dict[str, Tensor], spectrogram: Tensor, heads: int) -> Tensor:
    """Encoder of the papers, from the original tensors, with explicit attention, in float64."""
    s = {name: tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def attention(x: Tensor, name: str) -> Tensor:
        if f"{name}.qkv.bias" in s:
            bias = s[f"{name}.qkv.bias"]
        else:
            q_bias = s[f"{name}.q_bias"]
            bias = torch.cat([q_bias, 0 * q_bias, s[f"{name}.v_bias"]])
        qkv = x @ s[f"{name}.qkv.weight"].T + bias
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        mixed = scores.softmax(-1) @ v
        return linear(mixed.transpose(1, 2).flatten(2), f"{name}.proj")

    kernel = s["patch_embed.proj.weight"]
    x = F.conv2d(spectrogram[:, None].double(), kernel, stride=kernel.shape[2:])
    x = x.flatten(2).transpose(1, 2) + s["patch_embed.proj.bias"]
    x = x + s["pos_embed"][:, -x.shape[1] :]
    if "cls_token" in s:
        x = torch.cat([s["cls_token"].expand(len(x), -1, -1), x], dim=1)
    for block in range(1 + max(int(n.split(".")[1]) for n in s if n.startswith("blocks."))):
        name = f"blocks.{block}"
        x = x + attention(norm(x, f"{name}.norm1"), f"{name}.attn")
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm")


def lively(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with larger weights, so that the attention is far from uniform."""
    return {k: v * 10 if "attn" in k or "mlp" in k else v for k, v in state.items()}


def with_joint_bias(state: dict[str, Tensor], key_bias: float) -> dict[str, Tensor]:
    """The same model with `qkv.bias`, the key part filled with noise of that size."""
    joined = {k: v for k, v in state.items() if not k.endswith(("q_bias", "v_bias"))}
    for name, query in state.items():
        if name.endswith("q_bias"):
            key = key_bias * torch.randn_like(query)
            value = state[name.replace("q_bias", "v_bias")]
            joined[name.replace("q_bias", "qkv.bias")] = torch.cat([query, key, value])
    return joined


def assert_same_model(path: Path, state: dict[str, Tensor], heads: int = 1) -> None:
    """The file, loaded, computes what the original tensors compute."""
    checkpoint = load_any(path)
    encoder = Encoder(checkpoint.config)
    checkpoint.load_into(encoder)
    spectrogram = torch.randn(2, checkpoint.config.n_mels, checkpoint.config.unit_frames)
    with torch.no_grad():
        actual = encoder(spectrogram).double()
    expected = plain_tokens(state, spectrogram, heads)
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5


# ---------------------------------------------------------------------------------------------
# Layouts
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cls", [True, False])
def test_the_converted_model_computes_the_same(reference_state, save, cls):
    state = lively(reference_state(width=128, depth=2, cls=cls))
    assert_same_model(save({"model": state, "epoch": 99, "args": ARGS}), state, heads=2)


def test_a_key_bias_cancels(state, save):
    original = with_joint_bias(lively(state), key_bias=3.0)
    spectrogram = torch.randn(1, 80, 208)
    silenced = with_joint_bias(lively(state), key_bias=0.0)
    expected = plain_tokens(original, spectrogram, 1)
    torch.testing.assert_close(plain_tokens(silenced, spectrogram, 1), expected)
    assert_same_model(save({"model": original}), original)
    # ... while a value bias would be missed
    name = "blocks.0.attn.qkv.bias"
    wrong = original | {name: original[name] * torch.tensor([1.0, 0, 0]).repeat_interleave(64)}
    assert (plain_tokens(wrong, spectrogram, 1) - expected).norm() / expected.norm() > 1e-3


def test_joint_and_separate_biases_give_the_same_tensors(state, save):
    separate = load_any(save({"model": state}, "separate.pth"))
    joint = load_any(save({"model": with_joint_bias(state, 1.0)}, "joint.pth"))
    assert joint.config == separate.config
    assert joint.tensors.keys() == separate.tensors.keys()
    for name, tensor in joint.tensors.items():
        assert torch.equal(tensor, separate.tensors[name]), name


def test_bare_state_dictionary(state, save):
    assert_same_model(save(state), state)


@pytest.mark.parametrize("wrapped", [True, False])
def test_data_parallel_prefix(state, save, wrapped):
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    assert_same_model(save({"model": prefixed} if wrapped else prefixed), state)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("zipped", [True, False])
def test_formats_of_torch_save(state, save, zipped, protocol):
    how = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    assert_same_model(save({"model": state, "args": ARGS}, **how), state)


def test_parameters_and_ordered_dictionaries(state, save):
    parameters = OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in state.items())
    assert_same_model(save({"model": parameters}), state)


def test_float16_tensors(state, save):
    rounded = {name: tensor.half().float() for name, tensor in state.items()}
    path = save({"model": {name: tensor.half() for name, tensor in state.items()}})
    assert all(tensor.dtype == torch.float32 for tensor in load_any(path).tensors.values())
    assert_same_model(path, rounded | {"pos_embed": state["pos_embed"]})


@pytest.mark.parametrize("decoder", ["1d", "2d"])
@pytest.mark.parametrize("cls", [True, False])
def test_with_decoder(reference_state, save, decoder, cls):
    checkpoint = load_any(save({"model": reference_state(decoder=decoder, cls=cls)}))
    config = checkpoint.config
    assert checkpoint.has_decoder
    assert config.cls_token is cls
    assert config.decoder_positions == decoder
    assert (config.decoder_width, config.decoder_depth, config.decoder_heads) == (64, 1, 1)
    model = MaskedAutoencoder(config)
    checkpoint.load_into(model.encoder)
    checkpoint.load_into(model.decoder, "decoder.")
    with torch.no_grad():
        loss = model(torch.randn(2, 80, 208), random_mask(2, 65, 0.75))
    assert loss.isfinite()


def test_decoder_tensors_arrive(state, save):
    checkpoint = load_any(save({"model": state}))
    decoder = Decoder(checkpoint.config)
    checkpoint.load_into(decoder, "decoder.")
    assert torch.equal(decoder.predict.weight, state["decoder_pred.weight"])
    assert torch.equal(decoder.embed.bias, state["decoder_embed.bias"])
    assert torch.equal(decoder.mask_token, state["mask_token"])
    assert torch.equal(decoder.blocks[0].attn.qkv.v_bias, state["decoder_blocks.0.attn.v_bias"])
    assert torch.equal(decoder.positions, state["decoder_pos_embed"][0, 1:].float())


def test_without_decoder(reference_state, save):
    state = reference_state(decoder=None)
    path = save({"model": state})
    assert not load_any(path).has_decoder
    assert_same_model(path, state)


@pytest.mark.parametrize(
    "change",
    [
        {"decoder_embed.weight": None},
        {"decoder_norm.bias": None},
        {"decoder_blocks.0.mlp.fc1.bias": None},
        {"mask_token": torch.zeros(1, 1, 32)},
        {"decoder_pos_embed": torch.randn(1, 66, 64)},
        {"decoder_pos_embed": torch.tensor(1.0)},
        {"decoder_extra.weight": torch.zeros(3)},
    ],
)
def test_a_decoder_that_does_not_fit_is_left_out_with_a_note(state, save, caplog, change):
    changed = {k: v for k, v in (state | change).items() if v is not None}
    path = save({"model": changed})
    with caplog.at_level(logging.WARNING):
        checkpoint = load_any(path)
    assert not checkpoint.has_decoder
    assert re.search("decoder is left out.*(missing|should be|table|unknown)", caplog.text)
    assert_same_model(path, state)


def test_patches_are_read_row_by_row(state, save):
    """A convolution kernel and a matrix on flattened patches are the same numbers."""
    checkpoint = load_any(save({"model": state}))
    spectrogram = torch.randn(1, 80, 208)
    matrix = checkpoint.tensors["encoder.patch_embed.weight"]
    by_matrix = patchify(spectrogram, checkpoint.config) @ matrix.T
    by_kernel = F.conv2d(spectrogram[:, None], state["patch_embed.proj.weight"], stride=16)
    torch.testing.assert_close(by_matrix, by_kernel.flatten(2).transpose(1, 2))


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
    with pytest.raises(ValueError, match=r"checkpoint\.pth: norm_(stats|mean)"):
        load_any(save({"model": state, "norm_stats": stats}))


# ---------------------------------------------------------------------------------------------
# Into a file and into a model
# ---------------------------------------------------------------------------------------------
def test_load_model_takes_a_pth_directly(state, save, tmp_path):
    source = save({"model": with_joint_bias(state, 1.0), "args": ARGS, "norm_stats": [-6.5, 3.25]})
    converted = tmp_path / "converted.safetensors"
    checkpoint = load_any(source)
    save_checkpoint(converted, checkpoint)
    assert load_checkpoint(converted).config == checkpoint.config
    audio = torch.randn(2, 20000) * 0.1
    direct = load_model(source, mode="paper")
    assert direct.config.norm_std == 3.25
    torch.testing.assert_close(
        get_scene_embeddings(audio, direct),
        get_scene_embeddings(audio, load_model(str(converted), mode="paper")),
        rtol=0,
        atol=0,
    )


def test_a_wrong_suffix_does_not_matter(state, save, tiny_file, tmp_path):
    assert load_model(save({"model": state}, "model.safetensors")).config.width == 64
    (tmp_path / "model.pth").write_bytes(tiny_file.read_bytes())
    assert load_model(tmp_path / "model.pth").config.width == 32


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
        ({"head.weight": torch.zeros(10, 64)}, "unknown tensor 'head.weight'"),
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
    with pytest.raises(ValueError, match=r"wants to load test_convert\.Call"):
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
