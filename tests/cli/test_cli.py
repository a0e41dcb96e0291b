"""The command line but for `embed`, run in this process; once in a process of its own."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_errors import assert_one_line_error

import hear_msm_mae
from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints.native import load_checkpoint


# ---------------------------------------------------------------------------------------------
# info
# ---------------------------------------------------------------------------------------------
def test_info(run, tiny_file, tiny_checkpoint):
    result = run("info", tiny_file)
    assert result.status == 0, result.err
    shown = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert shown["name"] == "80x208p16x16"
    assert shown["sha256"] == hashlib.sha256(tiny_file.read_bytes()).hexdigest()
    assert str(tiny_file) in shown["file"]
    assert "32-d, 2 blocks, 2 heads, CLS" in shown["encoder"]
    assert "parameters" in shown["decoder"]
    assert "mean -7.1000, std 4.2000" in shown["statistics"]
    assert shown["layer"] == "last"
    assert re.search(r"embedding size\s+160\n", result.out)
    assert re.search(r"embedding scale\s+1\n", result.out)
    assert re.search(r"timestamp hops\s+10, 20, 40, 80, 160 ms", result.out)


def test_info_of_a_pth(run, reference_state, tmp_path):
    path = tmp_path / "model.pth"
    state = reference_state(patch=(16, 4), grid=(5, 52), cls=False, decoder=None)
    torch.save({"model": state, "norm_stats": [-6.5, 3.25]}, path)
    result = run("info", path)
    assert result.status == 0, result.err
    for part in ("80x208p16x4", "no CLS", "64-d, 1 blocks, 1 heads", "mean -6.5000, std 3.2500"):
        assert part in result.out
    assert re.search(r"decoder\s+none", result.out)


def test_info_of_something_else(run, tmp_path):
    assert load_model().config.name in run("info").out  # the bundled weights
    (tmp_path / "notes.txt").write_text("not weights")
    assert_one_line_error(run("info", tmp_path / "notes.txt"), r"notes\.txt.*weights file")
    assert_one_line_error(run("info", tmp_path / "absent"), "absent.*does not exist")


# ---------------------------------------------------------------------------------------------
# convert
# ---------------------------------------------------------------------------------------------
def test_convert(run, reference_state, tmp_path):
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    torch.save({"model": reference_state(), "norm_stats": [-6.5, 3.25]}, source)
    result = run("convert", source, output)
    assert result.status == 0, result.err
    assert f"80x208p16x16 with decoder -> {output}" in result.out
    assert load_checkpoint(output).config.norm_mean == -6.5
    audio = torch.randn(1, 16000) * 0.1
    converted, direct = (get_scene_embeddings(audio, load_model(p)) for p in (output, source))
    assert torch.equal(converted, direct)
    half = tmp_path / "half.safetensors"
    assert run("convert", source, half, "--half").status == 0
    assert half.stat().st_size < 0.55 * output.stat().st_size


def test_convert_with_a_name(run, reference_state, tmp_path):
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    state = reference_state(decoder=None)
    del state["pos_embed"]
    torch.save({"model": state}, source)
    assert_one_line_error(run("convert", source, output), "--name 80x208p16x16")
    assert not output.exists()
    assert "without decoder" in run("convert", source, output, "--name", "80x304p16x16").out
    assert load_checkpoint(output).config.name == "80x304p16x16"


def test_convert_says_what_the_decoder_predicts(run, reference_state, tmp_path):
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    torch.save({"model": reference_state(), "args": {"norm_pix_loss": True}}, source)
    for options, expected in (((), True), (("--no-norm-pixels",), False)):
        assert run("convert", source, output, *options).status == 0
        assert load_checkpoint(output).config.norm_pixels is expected
    again = tmp_path / "again.safetensors"  # a file that was converted without saying it
    assert run("convert", output, again, "--norm-pixels").status == 0
    assert "predicts normalised patches" in run("info", again).out


def test_convert_to_another_suffix_is_refused(run, tmp_path):
    result = run("convert", tmp_path / "model.pth", tmp_path / "model.bin")
    assert_one_line_error(result, r"must end in \.safetensors, got .*model\.bin")


# ---------------------------------------------------------------------------------------------
# validate
# ---------------------------------------------------------------------------------------------
def test_validate_says_how_to_install_the_validator(run, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "hearvalidator" else find_spec(name, *rest),
    )
    result = run("validate")
    assert_one_line_error(result, r"not installed; run: pip install .*hearvalidator")


@pytest.mark.parametrize("status", [0, 1])
def test_validate_runs_the_validator_on_the_weights(run, monkeypatch, tiny_file, status):
    commands = []

    def fake_run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setattr(subprocess, "run", fake_run)
    assert run("validate", "--weights", tiny_file).status == status
    (command,) = commands
    words = ["-m", "hearvalidator.validate", "hear_msm_mae", "--model", str(tiny_file)]
    assert command == [sys.executable, *words]


# ---------------------------------------------------------------------------------------------
# The rest
# ---------------------------------------------------------------------------------------------
def test_version(run):
    result = run("--version")
    assert result.status == 0
    assert result.out == f"hear_msm_mae {hear_msm_mae.__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(run, flag):
    result = run(flag)
    assert result.status == 0
    for command in ("embed", "info", "convert", "validate"):
        assert command in result.out
    result = run("embed", flag)
    assert result.status == 0
    for option in ("--output", "--timestamps", "--weights", "--hop-ms", "--precision", "--mode"):
        assert option in result.out


def test_no_arguments_show_the_help(run):
    result = run()
    assert result.status in (0, 2)  # depends on the version of click
    assert "embed" in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed"], "src"),
        (["embed", "a.wav"], "--output"),
        (["embed", "a.wav", "-o", "out.npz", "--hop-ms", "forty"], "--hop-ms"),
        (["embed", "a.wav", "-o", "out.npz", "--hops", "40"], "--hops"),
        (["embedd"], "embedd"),
        (["convert", "a.pth"], "output"),
    ],
)
def test_wrong_usage_is_explained(run, arguments, message):
    result = run(*arguments)
    assert result.status == 2
    assert message in result.err.lower()
    assert "Traceback" not in result.err


def test_in_a_process_of_its_own(tmp_path):
    """`python -m hear_msm_mae`: status and streams as a shell sees them."""
    command = [sys.executable, "-m", "hear_msm_mae", "info", str(tmp_path / "absent.safetensors")]
    root = Path(hear_msm_mae.__file__).parent.parent
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"error: .*absent\.safetensors.* does not exist\n", result.stderr)


@pytest.mark.parametrize("command", ["pretrain", "export"])
def test_a_missing_extra_is_one_line(run, tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "yaml", None)  # as if it was not installed
    result = run(command, "tiny-smoke", tmp_path / "x")
    assert_one_line_error(result, r"yaml.*; run: pip install 'hear_msm_mae\[pretrain\]'")


def test_an_import_that_fails_in_the_package_is_no_missing_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "hear_msm_mae.corpus.prepare", None)
    with pytest.raises(ImportError):
        run("prepare", "a", "b")
