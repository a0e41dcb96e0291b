"""`embed` to an output that is there: going on behind what is done, and what is refused."""

from __future__ import annotations

import pytest
from embed_rows import (
    SUFFIXES,
    Stopped,
    assert_same,
    embed,
    expected_table,
    small_pieces,
    stop_after,
    table,
)

from hear_msm_mae import load_model
from hear_msm_mae.embed import cutting
from hear_msm_mae.embed.sources import Recording
from hear_msm_mae.embed.store import Store


@pytest.mark.parametrize(
    ("suffix", "options", "results"),
    [
        (".npz", {}, 1),
        (".npz", {"timestamps": True}, 1),
        (".npz", {"segment": 1.5, "overlap": 0.5}, 1),
        *[(suffix, {"timestamps": True}, 3) for suffix in SUFFIXES if suffix != ".npz"],
    ],
    ids=str,
)
def test_going_on_in_the_middle_of_files(
    recordings, tiny_model, tmp_path, suffix, options, results, monkeypatch
):
    """Pieces end inside files; runs of one piece meet every seam there is."""
    monkeypatch.setattr(cutting, "BLOCK_SECONDS", 0.7)
    expected = expected_table(recordings, tiny_model, **options)
    small_pieces(monkeypatch)
    output = tmp_path / f"out{suffix}"
    runs = 0
    while True:
        runs += 1
        with monkeypatch.context() as patch:
            stop_after(patch, results)
            try:
                summary = embed(output, recordings, tiny_model, **options)
            except Stopped:
                assert (tmp_path / f"{output.name}.partial").is_dir()
                continue
        break
    assert runs > 8 // results
    assert summary.done == 10
    assert summary.earlier >= 9
    assert summary.seconds < 5.5  # the last file, or a part of it
    assert_same(table(output), expected)
    assert not (tmp_path / f"{output.name}.partial").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_new_files_are_added_and_old_ones_left_alone(
    recordings, tiny_model, tmp_path, suffix, monkeypatch
):
    output = tmp_path / f"out{suffix}"
    new = [recordings / name for name in ("3.wav", "sub/9.wav")]
    for path in new:
        path.rename(tmp_path / path.name)
    (recordings / "5.wav").rename(tmp_path / "5.wav")
    (recordings / "5.wav").write_text("broken")
    first = embed(output, recordings, tiny_model)
    assert (first.files, first.done, len(first.failures)) == (8, 7, 1)
    again = embed(output, recordings, tiny_model)
    assert (again.done, again.earlier, len(again.failures)) == (7, 7, 1)
    assert again.seconds == 0
    for path in [*new, recordings / "5.wav"]:
        (tmp_path / path.name).rename(path)
    summary = embed(output, recordings, tiny_model)
    assert (summary.done, summary.earlier, summary.failures) == (10, 7, [])
    assert summary.seconds == pytest.approx(2 + 3 + 5, rel=0.01)
    assert_same(table(output), expected_table(recordings, tiny_model))
    assert not (tmp_path / f"{output.name}.errors.csv").exists()


def test_stretches_that_are_there_already(recordings, tiny_model, tmp_path):
    output, path = tmp_path / "out.parquet", str(recordings / "8.wav")
    stretches = [Recording(path, 0.0, 2.0), Recording(path, 1.0, 3.5)]
    embed(output, stretches, tiny_model, segment=1.0)
    again = embed(output, stretches, tiny_model, segment=1.0)
    assert again.earlier == 2
    more = [*stretches, Recording(path, 4.0), Recording(str(recordings / "0.wav"))]
    summary = embed(output, more, tiny_model, segment=1.0)
    assert (summary.earlier, summary.done) == (2, 4)
    assert_same(table(output), expected_table(more, tiny_model, segment=1.0))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", [{}, {"timestamps": True}, {"segment": 1.0}], ids=str)
def test_stretches_to_the_end_of_the_file_are_found_again(
    recordings, tiny_model, tmp_path, suffix, options
):
    """Rows of a list without an end, or with one that is behind the end of the file."""
    rows = tmp_path / "rows.csv"
    rows.write_text(
        f"path,start,end\n{recordings}/3.wav,0.5,1.5\n{recordings}/5.wav,0.5,\n"
        f"{recordings}/6.wav,,\n{recordings}/7.wav,2,1000\n"
    )
    output = tmp_path / f"out{suffix}"
    assert embed(output, rows, tiny_model, **options).done == 4
    again = embed(output, rows, tiny_model, **options)
    assert (again.done, again.earlier, again.seconds) == (4, 4, 0)
    with rows.open("a") as file:
        file.write(f"{recordings}/8.wav,1,\n")
    more = embed(output, rows, tiny_model, **options)
    assert (more.done, more.earlier) == (5, 4)
    assert more.seconds == pytest.approx(3.5, rel=0.01)
    assert embed(output, rows, tiny_model, **options).earlier == 5
    expected = expected_table(rows, tiny_model, **options)
    assert_same(table(output), expected)


def test_a_stretch_that_ends_earlier_is_not_the_one_to_the_end(recordings, tiny_model, tmp_path):
    output, path = tmp_path / "out.parquet", str(recordings / "8.wav")
    embed(output, [Recording(path, 1.0, 2.0)], tiny_model)
    summary = embed(output, [Recording(path, 1.0)], tiny_model)
    assert (summary.earlier, summary.seconds) == (0, pytest.approx(3.5))
    assert embed(output, [Recording(path, 1.0, 2.0)], tiny_model).earlier == 1  # both are kept


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_files_and_stretches_in_one_output(recordings, tiny_model, tmp_path, suffix):
    """Both know what the other left, in either order."""
    output, sources = tmp_path / f"out{suffix}", [recordings / "3.wav", recordings / "4.wav"]
    embed(output, sources, tiny_model)
    stretch = Recording(str(recordings / "8.wav"), 1.0)
    assert embed(output, [*sources, stretch], tiny_model).earlier == 2
    assert embed(output, [*sources, stretch], tiny_model).earlier == 3
    whole = embed(output, [*sources, recordings / "8.wav"], tiny_model)
    assert (whole.earlier, whole.seconds) == (2, pytest.approx(4.5))
    assert embed(output, [*sources, recordings / "8.wav"], tiny_model).earlier == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, r"--dtype: float32, now float16"),
        ({"timestamps": True}, r"--timestamps: False, now True"),
        ({"segment": 2.0}, r"--segment: None, now 2\.0"),
    ],
    ids=str,
)
def test_other_settings_are_refused(
    recordings, tiny_model, tmp_path, suffix, stopped, change, message, monkeypatch
):
    output = tmp_path / f"out{suffix}"
    with monkeypatch.context() as patch:
        if stopped:
            stop_after(patch, 1)
            with pytest.raises(Stopped):
                embed(output, recordings, tiny_model)
        else:
            embed(output, recordings, tiny_model)
    with pytest.raises(ValueError, match=rf"out\S* was made with another setting of {message}"):
        embed(output, recordings, tiny_model, **change)
    summary = embed(output, recordings, tiny_model, overwrite=True, **change)
    assert (summary.done, summary.earlier) == (10, 0)
    assert_same(table(output), expected_table(recordings, tiny_model, **change))


def test_other_weights_are_refused(recordings, tiny_file, tiny_model, tmp_path):
    output = tmp_path / "out.npz"
    embed(output, recordings, tiny_model)
    other = load_model(tiny_file)
    next(other.encoder.parameters()).data[0] += 1
    with pytest.raises(
        ValueError, match=r"setting of --weights: tiny \(\w{12}\), now tiny \(\w{12}\)"
    ):
        embed(output, recordings, other)
    with pytest.raises(ValueError, match="--mode: default, now paper"):
        embed(output, recordings, load_model(tiny_file, mode="paper"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_something_else_under_that_name(recordings, tiny_model, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    if suffix:
        output.write_text("mine")
    else:
        output.mkdir()
        (output / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"out\S* exists and cannot be continued"):
        embed(output, recordings, tiny_model)
    assert (output if suffix else output / "mine.txt").read_text() == "mine"


def test_two_runs_at_once(recordings, tiny_model, tmp_path, monkeypatch):
    output = tmp_path / "out.npz"
    add = Store.add

    def again(self, result):
        with pytest.raises(ValueError, match="another process is writing to"):
            embed(output, recordings, tiny_model)
        add(self, result)

    monkeypatch.setattr(Store, "add", again)
    assert embed(output, recordings, tiny_model).done == 10
