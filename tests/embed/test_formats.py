"""Outputs: tables, and what all formats do alike, also with files of hostile origin."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from output_tables import READABLE, SETTINGS, assert_same, files, make, whole, written

from hear_msm_mae.embed.formats import common, format_of
from hear_msm_mae.embed.table import Clip, Done, Table, combined, from_json


# ---------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------
def test_any_order_of_recordings(monkeypatch):
    monkeypatch.setattr("hear_msm_mae.embed.table.BLOCK_BYTES", 48)  # three rows
    table = make(((1, 2), (3,), (), (2, 2), (1,)), timestamps=True)
    rows, times = whole(table)
    picked = table.select([4, 3, 0, 2])
    order = [10, 6, 7, 8, 9, 0, 1, 2]
    np.testing.assert_array_equal(whole(picked)[0], rows[order])
    np.testing.assert_array_equal(whole(picked)[1], times[order])
    assert [clip.recording for clip in picked.clips] == [0, 1, 1, 2, 2]
    assert [done.path for done in picked.recordings][:2] == ["r4.wav", "sub/r3.wav"]
    both = combined([picked, table], [(1, 1), (0, 0), (1, 4)])
    np.testing.assert_array_equal(whole(both)[0], rows[[3, 4, 5, 10, 10]])
    assert table.select([]).total_rows == 0
    index = np.concatenate([index for index, _ in table.indexed()])
    np.testing.assert_array_equal(index, np.repeat(np.arange(6), [1, 2, 3, 2, 2, 1]))


def test_missing_rows_are_found_out():
    table = make()
    table.clips[-1].rows = 5
    with pytest.raises(ValueError, match="the output is damaged"):
        whole(table)


def test_columns_have_one_type():
    table = make()
    values = {
        "a": (1, 2.5, None),
        "b": (1, "x", None),
        "c": (True, False, True),
        "d": (2**70, 1, 1),
    }
    for i, done in enumerate(table.recordings):
        done.columns = {name: value[i] for name, value in values.items()}
    assert table.columns() == {
        "a": [1.0, 2.5, None],
        "b": ["1", "x", None],
        "c": [True, False, True],
        "d": [str(2**70), "1", "1"],
    }


def test_equal_relative_paths_are_told_apart():
    table = make()
    table.recordings[2].path = table.recordings[0].path
    assert table.paths() == ["/data/r0.wav", "sub/r1.wav", "/data/r2.wav"]


# ---------------------------------------------------------------------------------------------
# All formats
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float16", "rows_each": ((2, 1), (3,), (1, 1, 1))},
        {"timestamps": True, "rows_each": ((5, 2), (1,), (4,))},
        {"rows_each": ((1,), (), (1,))},
    ],
    ids=str,
)
def test_what_is_read_is_what_was_written(tmp_path, suffix, options, monkeypatch):
    monkeypatch.setattr("hear_msm_mae.embed.table.BLOCK_BYTES", 48)
    table = make(**options)
    output = written(tmp_path / f"out{suffix}", table)
    assert_same(format_of(output).read(output), table)
    # And the other way round, into itself.
    again = format_of(output).read(output).select([2, 0])
    format_of(output).write(output, again)
    assert_same(format_of(output).read(output), table.select([2, 0]))
    assert [x.name for x in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("suffix", READABLE)
def test_the_same_stretches_twice_and_apart(tmp_path, suffix):
    """Rows of one recording need not lie side by side in the input."""
    table = make(((1,), (2,), (1,)), names=["a.wav", "b.wav", "a.wav"])
    table.recordings[2].key = [*table.recordings[0].key[:4], 1]
    output = written(tmp_path / f"out{suffix}", table)
    assert_same(format_of(output).read(output), table)


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".h5", ".duckdb", ".csv"])
def test_a_failing_write_leaves_what_is_there(tmp_path, suffix, monkeypatch):
    output = written(tmp_path / f"out{suffix}", make())
    before = output.read_bytes()
    monkeypatch.setattr("hear_msm_mae.embed.table.BLOCK_BYTES", 16)  # a row
    table, whole_table = make(), make()

    def read(first, count):
        if first:  # the first block is written already
            raise OSError(28, "No space left on device")
        return whole_table.read(first, count)

    table.read = read
    with pytest.raises(OSError, match="No space left"):
        format_of(output).write(output, table)
    assert output.read_bytes() == before
    assert files(tmp_path) == [output.name]


@pytest.mark.parametrize("suffix", [*READABLE, ".csv"])
def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path, suffix, monkeypatch):
    output = tmp_path / f"out{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        patch.setattr(Path, "replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            written(output, make())
    assert len(list(tmp_path.rglob(f"{common.TEMPORARY}*"))) == 1
    written(output, make())
    assert not list(tmp_path.rglob(f"{common.TEMPORARY}*"))


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".h5", ".csv"])
def test_memory_is_that_of_a_block(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("hear_msm_mae.embed.table.BLOCK_BYTES", 2**20)
    row = np.ones((1, 1000), np.float32)
    rows = 20_000 if suffix != ".csv" else 500
    size = 4000 * rows
    recordings = [Done(["/a.wav", 0.0, None, None, 0], "a.wav", "a.wav")]
    reader = lambda first, count: np.repeat(row, count, 0)  # noqa: E731
    table = Table(
        recordings, [Clip(0, 0.0, 1.0, rows)], SETTINGS, 1000, row.dtype, False, read=reader
    )
    output = tmp_path / f"out{suffix}"
    tracemalloc.start()
    try:
        format_of(output).write(output, table)
        if suffix != ".csv":
            for _, block in format_of(output).read(output).indexed():
                assert block.rows.shape[1] == 1000
        assert tracemalloc.get_traced_memory()[1] < max(size / 4, 10 * 2**20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", READABLE)
def test_files_of_others_are_refused(tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    if suffix:
        output.write_bytes(b"PK nothing")
    else:
        output.mkdir()
        (output / "settings.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"is not a f.* of this command"):
        format_of(output).read(output)
    if not suffix:
        with pytest.raises(ValueError, match="is not a folder of this command"):
            written(output, make())
        assert files(output) == ["settings.json"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "null",
        '{"settings": {}}',
        make().to_json().replace('"width": 4', '"width": 0'),
        make().to_json().replace('"float32"', '"object"'),
        make().to_json().replace("[0, 0.0, 1.0, 1,", "[7, 0.0, 1.0, 1,"),
        make().to_json().replace("[0, 0.0, 1.0, 1,", "[0, 0.0, 1.0, -1,"),
        make().to_json().replace("[0, 0.0, 1.0, 1,", "[0, 0.0, 1.0, 1e999,"),
    ],
)
def test_odd_lists_of_what_is_done(text):
    with pytest.raises(ValueError, match="it was not written by this command"):
        from_json(text)


def test_an_unknown_ending_and_a_url():
    with pytest.raises(ValueError, match=r"must end in one of \.parquet, .*got 'out\.xls'"):
        format_of("out.xls")
    with pytest.raises(ValueError, match=r"a local file or folder.*'s3://bucket/out\.npz'"):
        format_of("s3://bucket/out.npz")
