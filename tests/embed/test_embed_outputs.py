"""Outputs of `embed`: each format holds the rows that the HEAR functions give, in input order."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from embed_rows import SUFFIXES, assert_same, embed, expected_table, frame_of, table

from hear_msm_mae import get_scene_embeddings
from hear_msm_mae.audio import read_audio
from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.sources import Recording


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timestamps": True},
        {"segment": 1.5, "overlap": 0.5, "dtype": "float16"},
        {"segment": 1.0, "timestamps": True},
    ],
    ids=str,
)
def test_every_format_holds_the_same(recordings, tiny_model, tmp_path, suffix, options):
    output = tmp_path / f"out{suffix}"
    summary = embed(output, recordings, tiny_model, **options)
    assert (summary.files, summary.done, summary.earlier, summary.failures) == (10, 10, 0, [])
    assert summary.seconds == pytest.approx(0.5 * 55, rel=0.01)
    rows = table(output)
    assert_same(rows, expected_table(recordings, tiny_model, **options))
    dtype = "float32" if suffix == ".duckdb" else options.get("dtype", "float32")
    assert {vector.dtype for *_, vector in rows} == {np.dtype(dtype)}
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted([output.name, "recordings"])
    # What is read back is what was written.
    content = format_of(output).read(output)
    assert content.total_rows == len(rows)
    blocks = [block for _, block in content.indexed()]
    vectors = np.concatenate([block.rows for block in blocks])
    np.testing.assert_array_equal(vectors, np.stack([row[4] for row in rows]).astype(vectors.dtype))
    if options.get("timestamps"):
        times = np.concatenate([block.times_ms for block in blocks])
        np.testing.assert_allclose(times, [row[3] for row in rows], rtol=1e-12)


def test_two_files_for_one_place_in_the_folder(recordings, tiny_model, tmp_path):
    sources = [recordings / "0.wav", recordings, tmp_path / "other"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.wav").write_bytes((recordings / "0.wav").read_bytes())
    with pytest.raises(ValueError, match=r"0\.wav and .*0\.wav would both become 0\.wav\.npy"):
        embed(tmp_path / "out", sources, tiny_model)


def test_rows_are_those_of_the_file(recordings, tiny_model, tmp_path):
    """Closing the circle: file -> output -> the HEAR function on the same samples."""
    embed(tmp_path / "out.parquet", recordings, tiny_model)
    frame = pandas.read_parquet(tmp_path / "out.parquet")
    for path, end, vector in zip(frame["path"], frame["end"], frame["embedding"], strict=True):
        audio = read_audio(path)
        assert end == len(audio) / 16000
        expected = get_scene_embeddings(audio[None], tiny_model)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# Rows are those of the input
# ---------------------------------------------------------------------------------------------
LABELS = ["dog", "bird", "cat", "dog", "end"]


@pytest.fixture
def labels(recordings, tmp_path):
    """A list with duplicates, one stretch under two labels, a file twice, in no order."""
    rows = ["5.wav,0,0.5", "5.wav,0,0.5", "1.wav,0.5,1", "0.wav,,", "0.wav,,"]
    lines = [f"{recordings}/{row},{label}" for row, label in zip(rows, LABELS, strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["path,start,end,label", *lines]))
    return tmp_path / "list.csv"


@pytest.mark.parametrize("suffix", [".parquet", ".duckdb"])
def test_one_row_for_each_of_a_list(labels, recordings, tiny_model, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    for earlier in (0, 5):
        summary = embed(output, labels, tiny_model)
        assert (summary.files, summary.done, summary.earlier) == (5, 5, earlier)
        frame = frame_of(output)
        assert frame["label"].tolist() == LABELS
        assert_same(table(output), expected_table(labels, tiny_model))
    turned = tmp_path / "turned.csv"
    header, *lines = labels.read_text().splitlines()
    turned.write_text("\n".join([header, *lines[::-1], f"{recordings}/7.wav,1,2,new"]))
    assert embed(output, turned, tiny_model).earlier == 5
    assert frame_of(output)["label"].tolist() == ["end", "dog", "cat", "bird", "dog", "new"]
    # What a call does not name comes first.
    embed(output, recordings / "7.wav", tiny_model)
    expected = expected_table([turned, recordings / "7.wav"], tiny_model)
    assert_same(table(output), expected)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_texts_that_no_format_can_hold_as_they_are(recordings, tiny_model, tmp_path, suffix):
    """Bytes that are not UTF-8, NUL, and column names that differ in a slash only."""
    rows = [b"path,Stra\xdfe,a/b,a\\b", b"%s/0.wav,M\xfcller,1,2", b"%s/1.wav,x\0y,3,4", b"a\0,,,"]
    folder = str(recordings).encode()
    (tmp_path / "list.csv").write_bytes(b"\n".join(rows) % (folder, folder))
    output = tmp_path / f"out{suffix}"
    summary = embed(output, tmp_path / "list.csv", tiny_model)
    assert (summary.done, [x.path for x in summary.failures]) == (2, ["a\0"])
    if suffix == ".npz":
        columns = {name: x.tolist() for name, x in np.load(output).items() if "column" in name}
        assert columns == {
            "column_Stra_udcdfe": ["M\\udcfcller", "x\0y"],
            "column_a_b": [1, 3],
            "column_a_b_": [2, 4],
        }


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_values_of_columns_in_memory(recordings, tiny_model, tmp_path, suffix):
    """Recordings of a pandas table have NumPy values."""
    values = {"n": np.int64(3), "x": np.float32(0.5), "b": np.bool_(True), "none": np.nan}
    output = tmp_path / f"out{suffix}"
    embed(output, [Recording(str(recordings / "0.wav"), columns=values)], tiny_model)
    if suffix == ".parquet":
        row = frame_of(output).iloc[0]
        assert (row["n"], row["x"], row["b"]) == (3, 0.5, True)
        assert pandas.isna(row["none"])


def test_a_link_in_place_of_the_output_stays(recordings, tiny_model, tmp_path):
    """The output lies where the link leads: on a larger disk, for instance."""
    (tmp_path / "large").mkdir()
    link, target = tmp_path / "out.parquet", tmp_path / "large" / "there.parquet"
    link.symlink_to(target)
    for count in (1, 2):
        embed(link, [recordings / f"{i}.wav" for i in range(count)], tiny_model)
        assert link.readlink() == target
        assert len(pandas.read_parquet(target)) == count
    assert sorted(x.name for x in target.parent.iterdir()) == ["there.parquet"]


def test_the_index_of_a_folder_as_a_list(recordings, tiny_model, tmp_path):
    embed(tmp_path / "first", recordings / "0.wav", tiny_model)
    embed(tmp_path / "second", tmp_path / "first" / "index.csv", tiny_model)
    found, index = (pandas.read_csv(tmp_path / x / "index.csv") for x in ("second", "first"))
    assert sorted(found.columns) == sorted(index.columns)
    assert found["npy"].tolist() == index["npy"].tolist()


def test_two_files_of_one_relative_name(recordings, tiny_model, tmp_path, monkeypatch):
    """Run in two folders: both are there, and told apart."""
    output = tmp_path / "all.parquet"
    for number, day in enumerate(("day1", "day2")):
        (tmp_path / day).mkdir()
        (recordings / f"{number + 3}.wav").rename(tmp_path / day / "REC001.wav")
        monkeypatch.chdir(tmp_path / day)
        assert embed(output, ["."], tiny_model).earlier == 0
    frame = frame_of(output)
    assert frame["end"].tolist() == [2.0, 2.5]
    assert frame["path"].tolist() == [f"{tmp_path}/day{i}/REC001.wav" for i in (1, 2)]


def test_the_channel_of_a_row(tiny_model, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (16000, 2))
    soundfile.write(tmp_path / "a.wav", noise, 16000, subtype="FLOAT")
    output = tmp_path / "out.parquet"
    for channel in ("each", "mix"):
        embed(output, tmp_path / "a.wav", tiny_model, channel=channel)
    frame = frame_of(output)
    assert frame["channel"].tolist()[:2] == [0, 1]
    waveforms = [*noise.T, noise.mean(axis=1)]
    for vector, waveform in zip(frame["embedding"], waveforms, strict=True):
        expected = get_scene_embeddings(waveform[None].astype(np.float32), tiny_model)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# What the output lacks
# ---------------------------------------------------------------------------------------------
def errors(output) -> list[str]:
    with Path(f"{output}.errors.csv").open(newline="") as file:
        return [row["path"].rsplit("/", 1)[1] for row in csv.DictReader(file)]


def test_the_list_says_what_the_output_lacks(recordings, tiny_model, tmp_path):
    """Also what an earlier run could not read; until it is read, or deleted."""
    output, other = tmp_path / "out.npz", tmp_path / "other"
    other.mkdir()
    for folder, name in ((recordings, "bad.wav"), (recordings, "worse.wav"), (other, "odd.wav")):
        (folder / name).write_text("no audio")
    (other / "list.csv").write_text(f"path,start\n{recordings}/gone.wav,1\n{other}/odd.wav,\n")
    embed(output, recordings, tiny_model)
    assert errors(output) == ["bad.wav", "worse.wav"]
    embed(output, other / "list.csv", tiny_model)
    assert errors(output) == ["bad.wav", "worse.wav", "gone.wav", "odd.wav"]
    embed(output, other / "odd.wav", tiny_model)
    assert errors(output) == ["bad.wav", "worse.wav", "gone.wav", "odd.wav"]
    (recordings / "bad.wav").unlink()
    soundfile.write(recordings / "worse.wav", np.zeros(9000), 16000)
    embed(output, recordings, tiny_model)
    assert errors(output) == ["gone.wav", "odd.wav"]
    soundfile.write(recordings / "gone.wav", np.zeros(9000), 16000)
    (other / "odd.wav").unlink()
    embed(output, recordings, tiny_model)
    assert not (tmp_path / "out.npz.errors.csv").exists()


def test_times_without_end(recordings, tiny_model, tmp_path):
    """Infinity is the end of the file, and what overflows is the failure of one recording."""
    path = str(recordings / "1.wav")
    ends = [Recording(path, end=end) for end in (float("inf"), None, 1e306)]
    summary = embed(tmp_path / "out.parquet", [*ends, Recording(path, start=1e306)], tiny_model)
    assert (summary.files, summary.done, len(summary.failures)) == (4, 2, 2)
    assert len(read_audio(path, 0, float("inf"))) == len(read_audio(path))


def test_a_broken_link_is_listed_until_it_is_gone(recordings, tiny_model, tmp_path):
    link, output = recordings / "moved.wav", tmp_path / "out.parquet"
    link.symlink_to("nowhere.wav")
    (failure,) = embed(output, recordings, tiny_model).failures
    assert failure.reason == "is a link to a file that does not exist"
    link.unlink()
    assert embed(output, recordings, tiny_model).failures_file is None


def test_a_folder_is_listed_until_it_can_be_read(recordings, tiny_model, tmp_path, monkeypatch):
    output, scandir = tmp_path / "out.parquet", os.scandir

    def failing(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        assert embed(output, recordings, tiny_model).failures_file is not None
    assert embed(output, recordings, tiny_model).failures_file is None


def test_two_stretches_of_a_file_that_fails_twice(tiny_model, tmp_path):
    bad, output = tmp_path / "bad.wav", tmp_path / "out.npz"
    bad.write_text("no audio")
    for _ in range(2):
        embed(output, [Recording(str(bad), 0, 1), Recording(str(bad), 1, 2)], tiny_model)
        assert errors(output) == ["bad.wav"] * 2


# ---------------------------------------------------------------------------------------------
# Folders of NPY files
# ---------------------------------------------------------------------------------------------
def test_a_deleted_file_is_made_again(recordings, tiny_model, tmp_path):
    output = tmp_path / "out"
    embed(output, recordings, tiny_model)
    (output / "3.wav.npy").unlink()
    (output / "sub/9.wav.npy").write_bytes(b"cut")
    summary = embed(output, recordings, tiny_model)
    assert (summary.done, summary.earlier) == (10, 8)
    assert_same(table(output), expected_table(recordings, tiny_model))


def test_a_file_and_a_folder_of_one_name(recordings, tiny_model, tmp_path):
    """One of the two is embedded, and the names that the output itself needs are not taken."""
    source = tmp_path / "in"
    for name in ("a.wav", "a.wav.npy/b.wav", "index.csv/c.wav", "settings.json/d.wav", "z.wav"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((recordings / "0.wav").read_bytes())
    for earlier in (0, 2):
        summary = embed(tmp_path / "out", source, tiny_model)
        assert (summary.files, summary.done, summary.earlier) == (5, 2, earlier)
        assert [Path(x.path).name for x in summary.failures] == ["b.wav", "c.wav", "d.wav"]
    assert "needs a file and a folder of the same name" in summary.failures[0].reason
    assert len(table(tmp_path / "out")) == 2


def test_one_name_that_is_too_long(recordings, tiny_model, tmp_path):
    """It is named in the errors, the others are done, and the next run says the same."""
    (recordings / "0.wav").rename(recordings / f"{'x' * 251}.wav")
    output = tmp_path / "out"
    for earlier in (0, 9):
        summary = embed(output, recordings, tiny_model)
        assert (summary.files, summary.done, summary.earlier) == (10, 9, earlier)
        (failure,) = summary.failures
        assert "longer than the 255 bytes" in failure.reason
        assert errors(output) == [f"{'x' * 251}.wav"]
    assert embed(tmp_path / "out.npz", recordings, tiny_model).done == 10
