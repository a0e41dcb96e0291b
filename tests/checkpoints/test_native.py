"""Weights files of this package: round trips, atomic writing, and files that are none."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints import native as checkpoint_module
from hear_msm_mae.checkpoints.native import Checkpoint, load_checkpoint, save_checkpoint
from hear_msm_mae.files import replacing


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def refused(path: Path, reason: str, error: type[Exception] = ValueError) -> None:
    """Loading raises the error, which names the path and the reason."""
    with pytest.raises(error, match=f"(?s){re.escape(str(path))}.*{reason}"):
        load_model(path)


# ---------------------------------------------------------------------------------------------
# Round trips
# ---------------------------------------------------------------------------------------------
def test_round_trip_is_exact(tiny_checkpoint, tiny_file):
    loaded = load_checkpoint(tiny_file)
    assert loaded.config == tiny_checkpoint.config
    assert loaded.has_decoder
    assert loaded.tensors.keys() == tiny_checkpoint.tensors.keys()
    for name, tensor in loaded.tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tiny_checkpoint.tensors[name]), name


def test_half_files_are_half_the_size_and_float32_in_memory(tiny_checkpoint, tiny_file, tmp_path):
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, tiny_checkpoint, half=True)
    assert path.stat().st_size < 0.55 * tiny_file.stat().st_size
    model = load_model(path)
    state = model.encoder.state_dict()
    for name, tensor in load_checkpoint(path).part("encoder.").items():
        assert tensor.dtype == state[name].dtype == torch.float32
        rounded = tiny_checkpoint.tensors[f"encoder.{name}"].half().float()
        assert torch.equal(tensor, rounded), name
        assert torch.equal(state[name], rounded), name
    audio = torch.randn(1, 16000) * 0.1
    expected = get_scene_embeddings(audio, load_model(tiny_file))
    torch.testing.assert_close(
        get_scene_embeddings(audio, model), expected, rtol=0, atol=0.01
    )  # weights of about 0.1, rounded to 11 bits


def test_metadata_holds_the_configuration_and_the_statistics(tiny_checkpoint, tmp_path):
    config = dataclasses.replace(tiny_checkpoint.config, norm_mean=-6.25, norm_std=3.5)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(config, tiny_checkpoint.tensors))
    stored = json.loads(metadata_of(path)["config"])
    assert stored == dataclasses.asdict(config)
    assert (stored["norm_mean"], stored["norm_std"]) == (-6.25, 3.5)
    model = load_model(path)
    assert model.frontend.norm_mean.item() == -6.25
    assert model.frontend.norm_std.item() == 3.5


def test_one_file_without_decoder_is_a_complete_model(tiny_checkpoint, tiny_model, tmp_path):
    encoder = {k: v for k, v in tiny_checkpoint.tensors.items() if k.startswith("encoder.")}
    path = tmp_path / "encoder.safetensors"
    save_checkpoint(path, Checkpoint(tiny_checkpoint.config, encoder))
    assert not load_checkpoint(path).has_decoder
    audio = torch.randn(1, 16000) * 0.1
    assert torch.equal(
        get_scene_embeddings(audio, load_model(path)), get_scene_embeddings(audio, tiny_model)
    )


def test_views_of_one_storage_can_be_saved(tmp_path, tiny_checkpoint):
    """Converted joint biases are parts of one tensor."""
    joint = torch.randn(96)
    query, _, value = joint.chunk(3)
    names = [f"encoder.blocks.0.attn.qkv.{kind}_bias" for kind in "qv"]
    views = dict(zip(names, (query, value), strict=True))
    path = tmp_path / "views.safetensors"
    save_checkpoint(path, Checkpoint(tiny_checkpoint.config, tiny_checkpoint.tensors | views))
    loaded = load_checkpoint(path).tensors
    assert torch.equal(
        torch.cat([loaded[name] for name in names]), joint[[*range(32), *range(64, 96)]]
    )


def test_equal_models_are_equal_files(tiny_file, tmp_path):
    """safetensors writes its metadata in a random order."""
    for i in range(8):
        save_checkpoint(tmp_path / f"{i}.safetensors", load_checkpoint(tiny_file))
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {tiny_file.read_bytes()}


def test_files_stay_readable_by_safetensors(tiny_checkpoint, tiny_file):
    loaded = load_file(tiny_file)
    assert loaded.keys() == tiny_checkpoint.tensors.keys()
    assert all(torch.equal(t, tiny_checkpoint.tensors[name]) for name, t in loaded.items())
    header_size = int.from_bytes(tiny_file.read_bytes()[:8], "little")
    assert header_size % 8 == 0  # the tensors are aligned
    assert set(metadata_of(tiny_file)) == {"format", "format_version", "config"}


@pytest.mark.parametrize("size", [0x4B50, 0x10280, 0x10380, 0x10480, 0x10580])
def test_a_header_size_that_looks_like_a_pickle(tiny_file, tmp_path, size):
    """The first bytes are the header's size; these sizes begin like zip archives and pickles."""
    content = tiny_file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "padded.safetensors"
    header = content[8:end].ljust(size)  # JSON may end in spaces
    path.write_bytes(size.to_bytes(8, "little") + header + content[end:])
    assert load_model(path).scene_embedding_size == 5 * 32


# ---------------------------------------------------------------------------------------------
# Atomic writing
# ---------------------------------------------------------------------------------------------
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(
    tiny_checkpoint, tmp_path, monkeypatch
):
    path = tmp_path / "model.safetensors"
    path.write_text("old")

    def fail(tensors, destination, metadata):
        Path(destination).write_text("half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, tiny_checkpoint)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with replacing(tmp_path / "new.npz") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_under_its_name_when_complete(tmp_path):
    path = tmp_path / "deep" / "folder" / "out.npz"
    with replacing(path) as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == path.parent  # the same file system, so that replacing is atomic
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_follow_the_umask(tiny_checkpoint, tmp_path, mask, mode):
    path = tmp_path / "model.safetensors"
    before = os.umask(mask)
    try:
        save_checkpoint(path, tiny_checkpoint)
        assert os.umask(mask) == mask  # and is left alone
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


# ---------------------------------------------------------------------------------------------
# Files that are no weights
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.01, 0.03, 0.5, 0.999])
def test_truncated_files_are_refused(tiny_file, tmp_path, keep):
    content = tiny_file.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    refused(path, "truncated")


def test_one_missing_or_extra_byte_is_noticed(tiny_file, tmp_path):
    content = tiny_file.read_bytes()
    path = tmp_path / "byte.safetensors"
    for damaged in (content[:-1], content + b"\0"):
        path.write_bytes(damaged)
        refused(path, "truncated or not a safetensors weights file")


@pytest.mark.parametrize("text", ["weights\n", "version https://git-lfs.github.com/spec/v1\n" * 9])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
def test_a_text_file_is_refused(tmp_path, text, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_text(text)
    refused(path, "not a safetensors weights file")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_another_architecture_is_refused(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3, 3)}, path, metadata=metadata)
    refused(path, "another architecture.*hear_msm_mae.*hear-msm-mae convert")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": "2"}, "format version 2, .*reads 1.*upgrade"),
        ({"config": "{"}, "configuration is not JSON"),
        ({"config": '{"window": "hann"}'}, "unknown key.*window.*known"),
        ({"config": '{"width": 30, "heads": 4}'}, r"width \(30\) must be a multiple of heads"),
    ],
)
def test_unusable_metadata_is_refused(tiny_checkpoint, tiny_file, tmp_path, change, reason):
    path = tmp_path / "model.safetensors"
    save_file(tiny_checkpoint.tensors, path, metadata=metadata_of(tiny_file) | change)
    refused(path, reason)


def test_metadata_without_configuration_is_refused(tiny_checkpoint, tmp_path):
    path = tmp_path / "model.safetensors"
    metadata = {"format": "hear_msm_mae", "format_version": "1"}
    save_file(tiny_checkpoint.tensors, path, metadata=metadata)
    refused(path, "configuration")


def test_tensors_that_do_not_fit_are_named(tiny_checkpoint, tmp_path):
    config, tensors = tiny_checkpoint.config, tiny_checkpoint.tensors
    path = tmp_path / "model.safetensors"
    name = "encoder.blocks.1.mlp.fc2.bias"
    without = {k: v for k, v in tensors.items() if k != name}
    for changed in (
        without,  # missing
        without | {name: torch.zeros(31)},  # of another shape
        tensors | {"encoder.blocks.1.mlp.fc2.bias.more": torch.zeros(1)},  # one too many
    ):
        save_checkpoint(path, Checkpoint(config, changed))
        refused(path, r"do not fit the configuration 80x208p16x16.*blocks\.1\.mlp\.fc2\.bias")


def test_errors_about_tensors_are_one_line(tiny_checkpoint, tmp_path):
    path = tmp_path / "model.safetensors"
    deeper = dataclasses.replace(tiny_checkpoint.config, depth=3)
    save_checkpoint(path, Checkpoint(deeper, tiny_checkpoint.tensors))
    with pytest.raises(ValueError, match="do not fit") as error:
        load_model(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "absent.safetensors", "does not exist", FileNotFoundError)
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_a_folder_is_named(tmp_path):
    refused(tmp_path, "is a folder", FileNotFoundError)


@pytest.mark.parametrize("path", [None, 3, b"model.safetensors", ["model.safetensors"]])
def test_a_path_of_another_type_is_refused(path):
    with pytest.raises(TypeError, match="model_file_path must be a str or Path, got"):
        load_model(path)


def test_strings_and_paths_are_alike(tiny_file):
    first, second = load_model(tiny_file), load_model(str(tiny_file))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert not first.training
