"""The command line, run in this process through its entry point; once in a process of its own."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import Result

import hear_msm_mae
from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.checkpoint import load_checkpoint


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three files of different formats, rates, channels and lengths, one in a sub-folder."""
    folder = tmp_path / "recordings"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, rate, channels, seconds in (
        ("a.wav", 16000, 1, 1.0),
        ("b.flac", 44100, 2, 0.7),
        ("more/c.ogg", 22050, 1, 1.3),
    ):
        samples = generator.uniform(-0.3, 0.3, (int(rate * seconds), channels))
        soundfile.write(folder / name, samples, rate)
    (folder / "notes.txt").write_text("not audio")
    return folder


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def assert_one_line_error(result: Result, message: str) -> None:
    assert result.status == 2
    assert result.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.err), result.err
    assert re.search(message, result.err), result.err


# ---------------------------------------------------------------------------------------------
# embed
# ---------------------------------------------------------------------------------------------
def test_embed_a_folder(run, recordings, tiny_file, tmp_path):
    output = tmp_path / "new" / "out.npz"
    result = run("embed", recordings, "-o", output, "--weights", tiny_file)
    assert result.status == 0, result.err
    assert f"3 of 3 files -> {output}" in result.out
    arrays = load(output)
    assert arrays.keys() == {"paths", "seconds", "embeddings"}
    names = [Path(path).name for path in arrays["paths"]]
    assert sorted(names) == ["a.wav", "b.flac", "c.ogg"]
    seconds = dict(zip(names, arrays["seconds"], strict=True))
    assert seconds == pytest.approx({"a.wav": 1.0, "b.flac": 0.7, "c.ogg": 1.3}, abs=1e-3)
    model = load_model(tiny_file)
    assert arrays["embeddings"].shape == (3, model.scene_embedding_size)
    assert arrays["embeddings"].dtype == np.float32
    for path, row in zip(arrays["paths"], arrays["embeddings"], strict=True):
        expected = get_scene_embeddings(read_audio(path)[None], model)[0]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


def test_stereo_is_mixed_and_resampled(run, tiny_file, tmp_path):
    """The same sound, at 16 kHz mono and at 48 kHz with one silent channel, at half the level."""
    time = np.arange(48000) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 1760 * time)
    soundfile.write(tmp_path / "mono.wav", tone[::3] / 2, 16000, subtype="FLOAT")
    stereo = np.stack([tone, 0 * tone], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 48000, subtype="FLOAT")
    output = tmp_path / "out.npz"
    files = (tmp_path / "mono.wav", tmp_path / "stereo.wav")
    assert run("embed", *files, "-o", output, "-w", tiny_file).status == 0
    mono, mixed = load(output)["embeddings"]
    assert mono @ mixed / np.linalg.norm(mono) / np.linalg.norm(mixed) > 0.98


def test_timestamps(run, recordings, tiny_file, tmp_path):
    output = tmp_path / "out.npz"
    result = run("embed", recordings, "-o", output, "-w", tiny_file, "--timestamps")
    assert result.status == 0, result.err
    arrays = load(output)
    assert arrays.keys() == {"paths", "seconds", "embeddings", "timestamps", "clip"}
    rows = len(arrays["embeddings"])
    assert arrays["timestamps"].shape == arrays["clip"].shape == (rows,)
    assert arrays["clip"].dtype.kind == "i"
    assert (np.diff(arrays["clip"]) >= 0).all()
    assert set(arrays["clip"]) == {0, 1, 2}
    model = load_model(tiny_file)
    for index, path in enumerate(arrays["paths"]):
        embeddings, timestamps = get_timestamp_embeddings(read_audio(path)[None], model)
        rows_of_clip = arrays["clip"] == index
        np.testing.assert_allclose(
            arrays["embeddings"][rows_of_clip], embeddings[0].numpy(), atol=1e-5
        )
        np.testing.assert_array_equal(arrays["timestamps"][rows_of_clip], timestamps[0].numpy())
        assert arrays["timestamps"][rows_of_clip].max() <= 1000 * arrays["seconds"][index]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--hop-ms", 80], {"timestamp_hop_ms": 80}),
        (["--mode", "paper"], {"mode": "paper"}),
        (["--precision", "bfloat16"], {"precision": "bfloat16"}),
        (["--mode", "paper", "--hop-ms", 160], {"mode": "paper", "timestamp_hop_ms": 160}),
        (["--device", "cpu"], {}),
    ],
)
def test_options_reach_the_model(run, recordings, tiny_file, tmp_path, arguments, options):
    output = tmp_path / "out.npz"
    file = recordings / "a.wav"
    result = run("embed", file, "-o", output, "-w", tiny_file, "--timestamps", *arguments)
    assert result.status == 0, result.err
    model = load_model(tiny_file, **options)
    embeddings, timestamps = get_timestamp_embeddings(read_audio(file)[None], model)
    arrays = load(output)
    np.testing.assert_allclose(arrays["embeddings"], embeddings[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(arrays["timestamps"], timestamps[0].numpy(), rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_embed_on_cuda(run, recordings, tiny_file, tmp_path):
    for device in ("cpu", "cuda"):
        output = tmp_path / f"{device}.npz"
        assert (
            run("embed", recordings, "-o", output, "-w", tiny_file, "--device", device).status == 0
        )
    cpu, cuda = (load(tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda["embeddings"], cpu["embeddings"], atol=1e-3)


@pytest.mark.parametrize("timestamps", [[], ["--timestamps"]])
def test_an_unreadable_file_does_not_stop_the_rest(
    run, recordings, tiny_file, tmp_path, timestamps
):
    broken = recordings / "aa-broken.wav"
    broken.write_text("this is not audio")
    (recordings / "empty.flac").touch()
    output = tmp_path / "out.npz"
    result = run("embed", recordings, "-o", output, "-w", tiny_file, *timestamps)
    assert result.status == 3
    assert f"could not read {broken}: " in result.err
    assert "empty.flac" in result.err
    assert "Traceback" not in result.err
    assert "3 of 5 files" in result.out
    arrays = load(output)
    assert [Path(path).name for path in arrays["paths"]] == ["a.wav", "b.flac", "c.ogg"]
    if timestamps:
        assert set(arrays["clip"]) == {0, 1, 2}  # indices into what is there
    else:
        assert len(arrays["embeddings"]) == 3


def test_a_file_with_nan_is_unreadable(run, recordings, tiny_file, tmp_path):
    samples = np.zeros(16000, np.float32)
    samples[-1] = np.nan
    soundfile.write(recordings / "nan.wav", samples, 16000, subtype="FLOAT")
    result = run("embed", recordings, "-o", tmp_path / "out.npz", "-w", tiny_file)
    assert result.status == 3
    assert re.search(r"could not read \S*nan\.wav: .*NaN", result.err)


def test_only_the_reasons_are_written_when_no_file_can_be_read(run, tiny_file, tmp_path):
    (tmp_path / "broken.wav").write_text("this is not audio")
    output = tmp_path / "out" / "out.npz"
    result = run("embed", tmp_path / "broken.wav", "-o", output, "-w", tiny_file)
    assert result.status == 3
    assert "could not read" in result.err
    assert "0 of 1 files -> nothing was written" in result.out
    assert "Traceback" not in result.err
    assert [path.name for path in output.parent.iterdir()] == ["out.npz.errors.csv"]


def test_an_existing_output_stays_when_nothing_can_be_read(run, tiny_file, tmp_path):
    (tmp_path / "broken.wav").write_text("this is not audio")
    output = tmp_path / "out.npz"
    output.write_text("old")
    arguments = ("embed", tmp_path / "broken.wav", "-o", output, "-w", tiny_file, "--overwrite")
    assert run(*arguments).status == 3
    assert output.read_text() == "old"


def test_a_file_of_somebody_else_is_replaced_on_demand_only(run, recordings, tiny_file, tmp_path):
    output = tmp_path / "out" / "out.npz"
    output.parent.mkdir()
    output.write_text("old")
    arguments = ("embed", recordings, "-o", output, "-w", tiny_file)
    assert_one_line_error(run(*arguments), r"out\.npz exists and cannot be continued.*--overwrite")
    assert output.read_text() == "old"
    assert run(*arguments, "--overwrite").status == 0
    assert len(load(output)["paths"]) == 3
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.wav", "-o", "{out}"], r"missing\.wav"),
        (["{audio}", "-o", "out.csv"], r"--output must end in \.parquet, .*, got 'out\.csv'"),
        (["{audio}", "-o", "{out}", "--dtype", "int8"], r"dtype must be one of.*'int8'"),
        (["{empty}", "-o", "{out}"], r"no audio files in .*empty"),
        (["{audio}", "-o", "{out}", "--precision", "half"], r"precision must be one of.*'half'"),
        (["{audio}", "-o", "{out}", "--mode", "fast"], r"mode must be one of.*'default', 'paper'"),
        (["{audio}", "-o", "{out}", "--hop-ms", "50"], r"timestamp_hop_ms.*10, 20, 40, 80, 160"),
        (["{audio}", "-o", "{out}", "--device", "toaster"], r"--device 'toaster' is not usable"),
        (["{audio}", "-o", "{out}", "--weights", "no.safetensors"], r"no\.safetensors.*not exist"),
        (["{audio}", "-o", "{out}", "--weights", "{audio}"], r"a\.wav.*not a .*weights file"),
        (["{audio}", "-o", "{out}", "--weights", "{empty}"], r"empty.*folder"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_arguments_are_one_line(run, recordings, tiny_file, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {
        "audio": recordings / "a.wav",
        "out": tmp_path / "out.npz",
        "empty": tmp_path / "empty",
    }
    arguments = [argument.format(**places) for argument in arguments]
    if "--weights" not in arguments:
        arguments += ["--weights", str(tiny_file)]
    assert_one_line_error(run("embed", *arguments), message)
    assert not (tmp_path / "out.npz").exists()


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
    assert re.search(r"embedding size\s+160\n", result.out)
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


def test_info_of_the_bundled_weights(run):
    result = run("info")
    assert result.status == 0, result.err
    assert load_model().config.name in result.out


def test_info_of_something_else(run, tmp_path):
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


def test_convert_to_half(run, reference_state, tmp_path):
    source = tmp_path / "model.pth"
    torch.save({"model": reference_state(decoder=None)}, source)
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    assert "without decoder" in run("convert", source, full).out
    assert run("convert", source, half, "--half").status == 0
    assert half.stat().st_size < 0.55 * full.stat().st_size


def test_convert_with_a_name(run, reference_state, tmp_path):
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    state = reference_state(decoder=None)
    del state["pos_embed"]
    torch.save({"model": state}, source)
    assert_one_line_error(run("convert", source, output), "--name 80x208p16x16")
    assert not output.exists()
    assert run("convert", source, output, "--name", "80x304p16x16").status == 0
    assert load_checkpoint(output).config.name == "80x304p16x16"


class _Command:
    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self):
        return os.system, (self.text,)


def test_convert_refuses_a_pickle_that_runs_code(run, reference_state, tmp_path):
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    marker = tmp_path / "ran"
    torch.save({"model": reference_state(), "x": _Command(f"echo > {marker}")}, source)
    assert_one_line_error(run("convert", source, output), r"refused.*system")
    assert not marker.exists()
    assert not output.exists()


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
    assert command[:2] == [sys.executable, "-c"]
    assert "hearvalidator.validate" in command[2]
    assert command[3:] == ["hear_msm_mae", "--model", str(tiny_file)]


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


def test_in_a_process_of_its_own(tmp_path):
    """`python -m hear_msm_mae`: status and streams as a shell sees them."""
    command = [sys.executable, "-m", "hear_msm_mae", "info", str(tmp_path / "absent.safetensors")]
    root = Path(hear_msm_mae.__file__).parent.parent
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"error: .*absent\.safetensors.* does not exist\n", result.stderr)
