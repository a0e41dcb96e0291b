"""`embed` and files that are odd: formats, damage, names, URLs."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pandas
import pytest
import soundfile
from embed_rows import SUFFIXES

from hear_msm_mae import embed_files
from hear_msm_mae.embed.run import embed_to
from hear_msm_mae.embed.settings import settings_of
from hear_msm_mae.embed.sources import Failure, Recording, find_recordings
from hear_msm_mae.files import printable


def tone(path: Path, seconds: float = 0.5, rate: int = 16000, channels: int = 1, **options) -> Path:
    """A tone of 440 Hz at half the full scale, the same in all channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    frames = np.stack([samples] * channels, 1)
    with path.open("wb") as file:
        soundfile.write(file, frames, rate, format=path.suffix[1:].upper(), **options)
    return path


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """a.wav, b.flac and sub/c.wav below "in", which the current folder holds."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.flac", "sub/c.wav"):
        tone(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    return tmp_path / "in"


def paths(source: Path) -> list[str]:
    return [recording.path for recording in find_recordings([source])]


@pytest.mark.parametrize(
    ("name", "options", "seconds"),
    [
        ("channels.wav", {"channels": 8}, 0.5),
        ("fast.wav", {"rate": 384000}, 0.5),
        ("slow.wav", {"rate": 4000}, 0.5),
        ("coarse.wav", {"subtype": "PCM_U8"}, 0.5),
        ("signed.aiff", {"subtype": "PCM_S8"}, 0.5),
        ("double.wav", {"subtype": "DOUBLE"}, 0.5),
        ("tiny.wav", {"seconds": 1 / 16000}, 1 / 16000),
    ],
)
def test_unusual_formats(tmp_path, tiny_model, name, options, seconds):
    """All of them are the same tone, so they have nearly the same embedding."""
    path = tone(tmp_path / name, **options)
    (record,) = embed_files(path, tiny_model)
    assert record.end == pytest.approx(seconds, abs=1e-3)
    assert np.isfinite(record.embedding).all()
    if seconds == 0.5 and "rate" not in options:
        (plain,) = embed_files(tone(tmp_path / "plain.wav"), tiny_model)
        cosine = record.embedding @ plain.embedding
        cosine /= np.linalg.norm(record.embedding) * np.linalg.norm(plain.embedding)
        assert cosine > 0.85  # eight bits are noisy between the harmonics


def test_files_that_cannot_be_read(tmp_path, tiny_file, run):
    """Reasons in OUT.errors.csv, the rest in OUT, status 3."""
    folder = tmp_path / "in"
    tone(folder / "good.wav")
    (folder / "zero.wav").touch()
    whole = tone(folder / "header.wav").read_bytes()
    (folder / "header.wav").write_bytes(whole[:30])
    flac = tone(folder / "cut.flac", seconds=20).read_bytes()
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    for ending in ("ogg", "mp3", "au"):
        (folder / f"text.{ending}").write_text("not audio")
    (folder / "zero.mp3").touch()
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    nan = np.full(8000, np.nan, np.float32)
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    (folder / "loop.wav").symlink_to("loop.wav")
    output = tmp_path / "out.parquet"
    result = run("embed", folder, "-o", output, "-w", tiny_file)
    assert result.status == 3
    with Path(f"{output}.errors.csv").open(newline="") as file:
        errors = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    done = {Path(path).name for path in pandas.read_parquet(output)["path"]}
    assert {"zero.wav", "header.wav", "text.ogg", "empty.wav", "nan.wav"} <= errors.keys()
    assert "good.wav" in done
    assert not errors.keys() & done
    assert all(errors.values())
    assert "NaN" in errors["nan.wav"]
    assert "no audio samples" in errors["empty.wav"]
    assert errors["zero.wav"] == errors["zero.mp3"] == "cannot be read as audio (the file is empty)"
    # libsndfile says of the first that it does not exist, and takes the second for telephone sound.
    assert (
        errors["text.mp3"]
        == errors["text.ogg"]
        == "cannot be read as audio (its format is unknown, or it is damaged)"
    )
    assert errors["text.au"] == "cannot be read as audio (it has no header)"
    assert f"{len(done)} of {len(done) + len(errors)} files" in result.out
    for name in errors:
        assert name in result.err
    assert "Traceback" not in result.err


def test_a_truncated_wav_file_is_as_long_as_what_is_there(tmp_path, tiny_model):
    path = tone(tmp_path / "a.wav", seconds=2)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 16000])
    (record,) = embed_files(path, tiny_model)
    assert record.end == 1.0


def test_a_folder_that_vanishes(tree, tiny_model, tmp_path):
    """After it was listed: its files are reported, the others are embedded."""
    found = find_recordings([tree])
    shutil.rmtree(tree / "sub")
    output = tmp_path / "out.npz"
    summary = embed_to(output, found, tiny_model, settings_of(tiny_model, "tiny"))
    assert (summary.done, summary.files) == (2, 3)
    assert [Path(failure.path).name for failure in summary.failures] == ["c.wav"]
    assert "no such file" in summary.failures[0].reason


ODD_NAMES = (
    "with space",
    'double " quote',
    "single ' quote",
    "new\nline",
    "comma, x",
    "日本語",
    "$HOME;#",
    "=1+1",
    "\x1b[2J",
    "a\u202egnp",
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names(tmp_path, tiny_file, tiny_model, suffix, run):
    """Also one that is not UTF-8; run again, nothing is left to do."""
    folder = tmp_path / "in"
    files = [tone(folder / f"{name}.wav") for name in ODD_NAMES]
    files.append(tone(Path(os.fsdecode(os.fsencode(folder) + b"/not-utf-\xff8.wav"))))
    (folder / "bad\n\"'\udcfe.wav").touch()
    output = tmp_path / f"out{suffix}"
    arguments = ("embed", folder, "-o", output, "-w", tiny_file)
    result = run(*arguments)
    assert result.status == 3, result.err
    assert f"{len(files)} of {len(files) + 1} files -> {output}" in result.out
    expected = {printable(path) for path in files}
    assert any("\\udcf" in name for name in expected)
    with Path(f"{output}.errors.csv").open(newline="") as file:
        (error,) = csv.DictReader(file)
    assert error["path"].endswith("bad\\n\"'\\udcfe.wav")
    assert not set(result.out + result.err) & {"\x1b", "\u202e"}
    if suffix == ".parquet":
        frame = pandas.read_parquet(output)
        assert set(frame["path"]) == expected
        # Such an output is itself a list of files, in either form.
        assert set(paths(output)) == set(map(str, files))
        frame[["path"]].to_csv(tmp_path / "list.csv", index=False)
        assert set(paths(tmp_path / "list.csv")) == set(map(str, files))
    elif suffix == ".npz":
        assert set(np.load(output)["paths"].tolist()) == expected
    elif suffix == "":
        found = {os.fsencode(path.name) for path in output.glob("*.npy")}
        assert found == {os.fsencode(path.name) + b".npy" for path in files}
    result = run(*arguments)
    assert f"{len(files)} of them done before" in result.out
    assert "hours of audio" not in result.out


def test_urls(tree, tiny_model):
    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/bucket/in", recursive=True)
    urls = [f"memory:///bucket/in/{name}" for name in ("a.wav", "b.flac", "sub/c.wav")]
    try:
        records = list(embed_files("memory://bucket/in", tiny_model))
        expected = list(embed_files("in", tiny_model))
        assert [record.path for record in records] == urls
        for record, other in zip(records, expected, strict=True):
            np.testing.assert_array_equal(record.embedding, other.embedding)
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_signed_url_and_a_connection_that_ends(tree, tiny_model, tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    signed = f"memory:///bucket/a.wav?signature={'x' * 300}"
    sources = [Recording(signed), Recording("memory:///bucket/cut.wav")]
    cut = Exception("connection reset")  # aiohttp's are no OSError
    original = type(memory).open

    def opened(self, path, *args, **kwargs):
        if path.endswith("cut.wav"):
            raise cut
        return original(self, path, *args, **kwargs)

    try:
        for source in sources:
            memory.put_file(str(tree / "a.wav"), source.path.removeprefix("memory://"))
        monkeypatch.setattr(type(memory), "open", opened)
        failures: list[Failure] = []
        (record,) = embed_files(sources, tiny_model, failures=failures)
        assert record.end == 0.5
        assert [f.reason for f in failures] == ["cannot be read: Exception: connection reset"]
    finally:
        memory.rm("/bucket", recursive=True)
