"""`hear-msm-mae embed`, run in this process through its entry point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from cli_errors import assert_one_line_error

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.embed.pieces import embed_recordings


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


def test_embed_a_folder(run, recordings, tiny_file, tmp_path):
    output = tmp_path / "new" / "out.npz"
    result = run("embed", recordings, "-o", output, "--weights", tiny_file)
    assert result.status == 0, result.err
    assert f"3 of 3 files -> {output}" in result.out
    arrays = load(output)
    assert arrays.keys() == {"paths", "start", "seconds", "embeddings", "recordings"}
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


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--device", "cpu"], {}),
        (
            ["--hop-ms", 80, "--precision", "bfloat16"],
            {"timestamp_hop_ms": 80, "precision": "bfloat16"},
        ),
        (["--mode", "paper", "--hop-ms", 160], {"mode": "paper", "timestamp_hop_ms": 160}),
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


def test_the_address_of_a_cluster(run, recordings, tiny_file, tmp_path, monkeypatch):
    addresses = []

    def on_ray(model, settings, address, device):
        addresses.append((address, device))
        return lambda recordings, plan, resume: embed_recordings(recordings, plan)

    monkeypatch.setattr("hear_msm_mae.embed.ray.on_ray", on_ray)
    arguments = ("embed", recordings, "-o", tmp_path / "out.parquet", "-w", tiny_file, "--ray")
    assert run(*arguments).status == 0
    assert run(*arguments, "--ray-address", "ray://head:10001").status == 0
    assert addresses == [("auto", "cpu"), ("ray://head:10001", "cpu")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_embed_on_cuda(run, recordings, tiny_file, tmp_path):
    for device in ("cpu", "cuda"):
        output = tmp_path / f"{device}.npz"
        assert (
            run("embed", recordings, "-o", output, "-w", tiny_file, "--device", device).status == 0
        )
    cpu, cuda = (load(tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda["embeddings"], cpu["embeddings"], atol=1e-3)


def test_an_unreadable_file_does_not_stop_the_rest(run, recordings, tiny_file, tmp_path):
    broken = recordings / "aa-broken.wav"
    broken.write_text("this is not audio")
    (recordings / "empty.flac").touch()
    output = tmp_path / "out.npz"
    result = run("embed", recordings, "-o", output, "-w", tiny_file, "--timestamps")
    assert result.status == 3
    assert f"could not read {broken}: " in result.err
    assert "empty.flac" in result.err
    assert "Traceback" not in result.err
    assert "3 of 5 files" in result.out
    arrays = load(output)
    assert [Path(path).name for path in arrays["paths"]] == ["a.wav", "b.flac", "c.ogg"]
    assert set(arrays["clip"]) == {0, 1, 2}  # indices into what is there


def test_only_the_reasons_are_written_when_no_file_can_be_read(run, tiny_file, tmp_path):
    (tmp_path / "broken.wav").write_text("this is not audio")
    output = tmp_path / "out" / "out.npz"
    command = ("embed", tmp_path / "broken.wav", "-o", output, "-w", tiny_file)
    result = run(*command)
    assert result.status == 3
    assert "could not read" in result.err
    assert "0 of 1 files -> nothing was written" in result.out
    assert "Traceback" not in result.err
    assert [path.name for path in output.parent.iterdir()] == ["out.npz.errors.csv"]
    output.write_text("old")
    assert run(*command, "--overwrite").status == 3
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
        (
            ["{audio}", "-o", "out.xls"],
            r"one of \.parquet, .*, got 'out\.xls'",
        ),
        (
            ["{audio}", "-o", "s3://bucket/out.npz"],
            r"must be a local file.*s3://bucket",
        ),
        (["{audio}", "-o", "{out}", "--dtype", "int8"], r"dtype must be one of.*'int8'"),
        (["{empty}", "-o", "{out}"], r"no audio files in .*empty"),
        (["{audio}", "-o", "{out}", "--precision", "half"], r"precision must be one of.*'half'"),
        (["{audio}", "-o", "{out}", "--mode", "fast"], r"mode must be one of.*'default', 'paper'"),
        (["{audio}", "-o", "{out}", "--hop-ms", "50"], r"timestamp_hop_ms.*10, 20, 40, 80, 160"),
        (["{audio}", "-o", "{out}", "--device", "toaster"], r"device 'toaster' is not usable"),
        (["{audio}", "-o", "{out}", "--ray-address", "head:6379"], r"--ray-address.*without --ray"),
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
