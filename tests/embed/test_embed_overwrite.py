"""`embed` and what is in the way: outputs to replace, files of others, places that are taken."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile
from embed_rows import (
    SUFFIXES,
    Stopped,
    assert_same,
    embed,
    expected_table,
    stop_after,
    table,
)

from hear_msm_mae.embed.formats import npy
from hear_msm_mae.embed.sources import Recording


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_folder_of_somebody_else_is_never_cleared(recordings, tiny_model, tmp_path):
    output = tmp_path / "features"
    (output / "sub").mkdir(parents=True)
    for name in ("labels.npy", "sub/x.npy", "settings.json", "notes.txt"):
        (output / name).write_text("mine")
    before = contents(output)
    with pytest.raises(ValueError, match=r"exists and cannot be continued.*another output$"):
        embed(output, recordings, tiny_model, overwrite=True)
    assert contents(output) == before
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_overwriting_a_folder_leaves_strangers_alone(recordings, tiny_model, tmp_path):
    output = tmp_path / "out"
    embed(output, recordings, tiny_model)
    for name in (".DS_Store", "sub/mine.npy"):
        (output / name).write_text("mine")
    (recordings / "0.wav").unlink()
    embed(output, recordings, tiny_model, overwrite=True, timestamps=True)
    assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))
    assert not (output / "0.wav.npy").exists()
    assert {(output / name).read_text() for name in (".DS_Store", "sub/mine.npy")} == {"mine"}
    shutil.rmtree(recordings / "sub")
    (output / "sub/mine.npy").unlink()
    embed(output, recordings, tiny_model, overwrite=True)
    assert not (output / "sub").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("results", [0, 2])
def test_a_stopped_overwriting_run_goes_on_without_the_option(
    recordings, tiny_model, tmp_path, suffix, results, monkeypatch
):
    """Nothing of the old output is taken for new, even where nothing of it was replaced yet."""
    output = tmp_path / f"out{suffix}"
    embed(output, recordings, tiny_model)
    old = table(output)
    for path in recordings.rglob("*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[::-1], rate)
    with monkeypatch.context() as patch:
        stop_after(patch, results)
        with pytest.raises(Stopped):
            embed(output, recordings, tiny_model, overwrite=True)
    if not results:
        assert_same(table(output), old)
    summary = embed(output, recordings, tiny_model)
    assert (summary.done, summary.earlier > 0) == (10, results > 0)
    assert_same(table(output), expected_table(recordings, tiny_model))
    assert embed(output, recordings, tiny_model).earlier == 10


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_stretches_of_a_recording_stay(recordings, tiny_model, tmp_path, suffix):
    output, path = tmp_path / f"out{suffix}", str(recordings / "8.wav")
    first, second = Recording(path, 0.0, 2.0), Recording(path, 3.0, 4.0)
    embed(output, [first], tiny_model)
    assert embed(output, [second], tiny_model).done == 1
    assert_same(table(output), expected_table([first, second], tiny_model))


def test_no_room_for_the_first_files_of_a_folder(recordings, tiny_model, tmp_path, monkeypatch):
    output, written = tmp_path / "out", []
    original = npy.replaced

    def limited(*arguments):
        written.append(1)
        if len(written) > 5:  # index, settings and three files
            raise OSError(28, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(npy, "replaced", limited)
        with pytest.raises(OSError, match=r"make room and repeat the command$"):
            embed(output, recordings, tiny_model)
    summary = embed(output, recordings, tiny_model)
    assert (summary.done, summary.earlier, summary.seconds) == (10, 10, 0)
    assert_same(table(output), expected_table(recordings, tiny_model))


def test_a_place_that_another_folder_has_taken(recordings, tiny_model, tmp_path, monkeypatch):
    """Found before anything is embedded, whether the first run is finished or not."""
    output, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "3.wav", np.zeros(9000), 16000)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Stopped):
            embed(output, recordings, tiny_model)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"would both become 3\.wav\.npy"):
            embed(output, other, tiny_model)
        embed(output, recordings, tiny_model)
    assert_same(table(output), expected_table(recordings, tiny_model))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", r"--output must be the name of a file or folder, got '\.'"),
        ("..", "--output must be the name of a file or folder"),
        ("s3://bucket/out.npz", "must be a local file or folder"),
    ],
)
def test_outputs_without_a_place(recordings, tiny_model, output, message):
    with pytest.raises(ValueError, match=message):
        embed(output, recordings, tiny_model)


def test_a_file_in_place_of_the_folder(recordings, tiny_model, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out is a file; a name without an ending is a folder"):
        embed(tmp_path / "out", recordings, tiny_model, overwrite=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["out", "recordings"]


def test_a_place_where_nothing_can_be_made(recordings, tiny_model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"out\.npz\.partial cannot be written: Not a directory$"):
        embed(tmp_path / "file" / "out.npz", recordings, tiny_model)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_list_among_the_sources_is_not_the_output(recordings, tiny_model, tmp_path, overwrite):
    source = tmp_path / "list.csv"
    source.write_text(f"path,label\n{recordings}/0.wav,a\n")
    before = contents(tmp_path)
    for sources in (source, [str(recordings), str(source)]):
        with pytest.raises(ValueError, match=r"list\.csv is an input, too; choose another"):
            embed(source, sources, tiny_model, overwrite=overwrite)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", ["", "my notes\n1,2\n", "path,reason\na.wav,loud\n"])
def test_a_file_in_place_of_the_list_of_failures_stays(recordings, tiny_model, tmp_path, content):
    mine = tmp_path / "out.npz.errors.csv"
    mine.write_text(content)
    with pytest.raises(ValueError, match=r"out\.npz\.errors\.csv.* is another file; rename it"):
        embed(tmp_path / "out.npz", recordings, tiny_model, overwrite=True)
    assert mine.read_text() == content
    assert [path.name for path in tmp_path.glob("out*")] == [mine.name]
