"""Outputs: each format, written and read back, read by other libraries, and of hostile origin."""

from __future__ import annotations

import csv
import json
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hear_msm_mae.embed.formats import common, format_of
from hear_msm_mae.embed.sources import Recording
from hear_msm_mae.embed.table import Clip, Done, Table, combined, from_json

READABLE = (".parquet", ".npz", ".h5", ".duckdb", "")
SETTINGS = {"weights_name": "tiny", "weights": "0123abcd", "segment": None, "layers": [1, 2]}


def make(
    rows_each=((1,), (1,), (1,)),
    width: int = 4,
    dtype: str = "float32",
    timestamps: bool = False,
    names=None,
    **settings,
) -> Table:
    """Recordings r0.wav, sub/r1.wav, ... with clips of so many rows; values tell rows apart."""
    names = names or [("sub/" if i % 2 else "") + f"r{i}.wav" for i in range(len(rows_each))]
    recordings, clips = [], []
    for i, (name, counts) in enumerate(zip(names, rows_each, strict=True)):
        key = [f"/data/{name}", 0.0, None, None, 0]
        recordings.append(Done(key, name, name, [100 + i, 5.5], {"label": f"l{i}", "n": i}))
        for j, rows in enumerate(counts):
            times = (1000.0 * j, 40.0) if timestamps else (0.0, 0.0)
            clips.append(Clip(i, float(j), j + 1.0, rows, None, *times))
    total = sum(clip.rows for clip in clips)
    values = np.random.default_rng(0).normal(size=(total, width)).astype(dtype)
    how = SETTINGS | settings, width, np.dtype(dtype), timestamps
    return Table(recordings, clips, *how, read=lambda first, count: values[first : first + count])


def whole(table: Table) -> tuple[np.ndarray, np.ndarray | None]:
    blocks = [block for _, block in table.indexed()]
    times = [block.times_ms for block in blocks if block.times_ms is not None]
    rows = np.concatenate([block.rows for block in blocks])
    return rows, np.concatenate(times) if times else None


def assert_same(table: Table, expected: Table) -> None:
    assert json.loads(table.to_json()) == json.loads(expected.to_json())
    rows, times = whole(table)
    other, other_times = whole(expected)
    assert rows.dtype == other.dtype
    np.testing.assert_array_equal(rows, other)
    if other_times is None:
        assert times is None
    else:
        np.testing.assert_allclose(times, other_times, rtol=1e-12)


def written(path: Path, table: Table) -> Path:
    format_of(path).write(path, table)
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file())


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


# ---------------------------------------------------------------------------------------------
# Single files, read by other libraries
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet(tmp_path, dtype):
    table = make(((1, 2), (1,), (1,)), dtype=dtype, timestamps=True)
    output = written(tmp_path / "out.parquet", table)
    schema = pq.read_schema(output)
    shown = "float" if dtype == "float32" else "halffloat"
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "path": "string",
        "start": "double",
        "end": "double",
        "timestamp_ms": "double",
        "label": "string",
        "n": "int64",
        "embedding": f"fixed_size_list<element: {shown}>[4]",
    }
    assert schema.metadata[b"hear_msm_mae.weights_name"] == b"tiny"
    assert schema.metadata[b"hear_msm_mae.layers"] == b"[1, 2]"
    frame = pandas.read_parquet(output)
    assert frame["path"].tolist() == ["r0.wav"] * 3 + ["sub/r1.wav", "r2.wav"]
    assert frame["start"].tolist() == [0, 1, 1, 0, 0]
    assert frame["timestamp_ms"].tolist() == [0, 1000, 1040, 0, 0]
    assert frame["label"].tolist() == ["l0"] * 3 + ["l1", "l2"]
    np.testing.assert_array_equal(np.stack(frame["embedding"]), whole(table)[0])


def test_parquet_in_polars_and_duckdb(tmp_path):
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    table = make()
    output = written(tmp_path / "out.parquet", table)
    expected = whole(table)[0]
    np.testing.assert_array_equal(polars.read_parquet(output)["embedding"].to_numpy(), expected)
    rows = duckdb.sql(f"select embedding from '{output}'").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in rows], np.float32), expected)


def test_parquet_that_lost_rows(tmp_path):
    output = written(tmp_path / "out.parquet", make())
    pq.write_table(pq.read_table(output).slice(1), output)
    with pytest.raises(ValueError, match="its rows are not those that were written"):
        format_of(output).read(output)


def test_many_recordings_in_parquet(tmp_path):
    """Readers refuse metadata above 100 MB: what is done must stay far below."""
    names = [f"corpus/speaker{i % 50}/recording-{i:06d}.wav" for i in range(20_000)]
    output = written(tmp_path / "out.parquet", make([(1,)] * 20_000, width=1, names=names))
    stored = sum(map(len, pq.read_schema(output).metadata.values()))
    assert stored < 60 * 20_000
    assert len(pandas.read_parquet(output)) == 20_000


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_arrays(tmp_path, suffix):
    table = make(((1, 2), (1,), (1,)), timestamps=True)
    table.recordings[1].columns = {"n": 5, "km/h": 1.5}
    for clip in table.clips:
        clip.channel = 1
    output = written(tmp_path / f"out{suffix}", table)
    with h5py.File(output) if suffix == ".h5" else np.load(output) as file:
        arrays = {name: file[name][:] for name in file}
    text = {
        x: [s.decode() if isinstance(s, bytes) else s for s in arrays[x].tolist()]
        for x in ("paths", "column_label")
    }
    assert text == {
        "paths": ["r0.wav", "r0.wav", "sub/r1.wav", "r2.wav"],
        "column_label": ["l0", "l0", "", "l2"],
    }
    assert arrays["start"].tolist() == [0, 1, 0, 0]
    assert arrays["seconds"].tolist() == [1, 1, 1, 1]
    assert arrays["channel"].tolist() == [1, 1, 1, 1]
    assert arrays["column_n"].tolist() == [0, 0, 5, 2]
    np.testing.assert_array_equal(arrays["column_km_h"], [np.nan, np.nan, 1.5, np.nan])
    assert arrays["clip"].tolist() == [0, 1, 1, 2, 3]
    assert arrays["timestamps"].tolist() == [0, 1000, 1040, 0, 0]
    np.testing.assert_array_equal(arrays["embeddings"], whole(table)[0])


def test_npz_that_is_compressed_or_cut(tmp_path):
    output = written(tmp_path / "out.npz", make())
    with np.load(output) as file:
        arrays = dict(file)
    np.savez_compressed(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=r"recordings\.npy is stored in another way"):
        format_of(output).read(tmp_path / "other.npz")
    output.write_bytes(output.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is not a file of this command"):
        format_of(output).read(output)


def test_hdf5_that_names_other_files(tmp_path):
    """A hostile file may link to others, or keep its data there."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 4096)
    good = written(tmp_path / "good.h5", make())
    for kind in ("link", "external", "symbolic"):
        output = tmp_path / f"{kind}.h5"
        output.write_bytes(good.read_bytes())
        with h5py.File(output, "a") as file:
            del file["embeddings"]
            if kind == "link":
                file["embeddings"] = h5py.ExternalLink(str(good), "embeddings")
            elif kind == "external":
                file.create_dataset(
                    "embeddings", (3, 4), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
                )
            else:
                file["embeddings"] = h5py.SoftLink("/recordings")
        with pytest.raises(ValueError, match="is not a file of this command"):
            format_of(output).read(output)


def test_duckdb(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    table = make(((1, 2), (1,), (1,)), timestamps=True, dtype="float16")
    output = written(tmp_path / "out.duckdb", table)
    with duckdb.connect(str(output)) as file:
        types = dict(row[:2] for row in file.sql("describe embeddings").fetchall())
        assert types["embedding"] == "FLOAT[4]"
        assert (types["path"], types["label"], types["n"]) == ("VARCHAR", "VARCHAR", "BIGINT")
        rows = file.sql('select path, "end", timestamp_ms, n from embeddings').fetchall()
        assert rows[2] == ("r0.wav", 2.0, 1040.0, 0)
        settings = dict(file.sql("from hear_msm_mae").fetchall())
        assert settings["weights_name"] == "tiny"
        file.execute("delete from embeddings where n = 1")
    with pytest.raises(ValueError, match="its rows are not those that were written"):
        format_of(output).read(output)


def test_a_duckdb_view_reads_no_other_file(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    table = make()
    output = written(tmp_path / "out.duckdb", table)
    written(tmp_path / "other.parquet", table)
    with duckdb.connect(str(output)) as file:
        file.execute("drop table embeddings")
        source = tmp_path / "other.parquet"
        file.execute(f"create view embeddings as select *, 0 as rowid from '{source}'")
    with pytest.raises(ValueError, match="is not a file of this command"):
        format_of(output).read(output)


def test_csv(tmp_path):
    table = make(((1, 2), (1,), (1,)), timestamps=True)
    labels = ("=cmd|' /C calc'!A0", "+1", "-x\x1b[2J\u202e")
    for done, label in zip(table.recordings, labels, strict=True):
        done.columns = {"label": label, "=n": 1.5}
    table.recordings[0].path = "@a, b.wav"
    output = written(tmp_path / "out.csv", table)
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == [
        "path",
        "start",
        "end",
        "timestamp_ms",
        "label",
        "'=n",
        *(f"e{i}" for i in range(4)),
    ]
    assert rows[1][:6] == ["'@a, b.wav", "0.0", "1.0", "0.0", "'=cmd|' /C calc'!A0", "1.5"]
    assert [row[4] for row in rows[4:]] == ["'+1", "'-x\\x1b[2J\\u202e"]
    assert not [c for c in output.read_text() if ord(c) > 126 or (ord(c) < 32 and c not in "\r\n")]
    values = np.array([row[6:] for row in rows[1:]]).astype(np.float32)
    np.testing.assert_array_equal(values, whole(table)[0])
    half = make(dtype="float16")
    frame = pandas.read_csv(written(output, half))
    np.testing.assert_array_equal(frame[["e0", "e1", "e2", "e3"]].astype("float16"), whole(half)[0])
    with pytest.raises(ValueError, match="cannot be continued"):
        format_of(output).read(output)


# ---------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------
def test_the_folder_mirrors_the_tree(tmp_path):
    table = make(((1,), (1, 2), (1,)))
    output = written(tmp_path / "out", table)
    assert files(output) == [
        "index.csv",
        "r0.wav.npy",
        "r2.wav.npy",
        "settings.json",
        "sub/r1.wav.npy",
    ]
    rows = whole(table)[0]
    np.testing.assert_array_equal(np.load(output / "r0.wav.npy"), rows[0])
    np.testing.assert_array_equal(np.load(output / "sub" / "r1.wav.npy"), rows[1:4])
    frame = pandas.read_csv(output / "index.csv")
    assert frame["npy"].tolist() == ["r0.wav.npy", "sub/r1.wav.npy", "sub/r1.wav.npy", "r2.wav.npy"]
    assert frame["first_row"].tolist() == [0, 0, 1, 0]
    assert frame["rows"].tolist() == [1, 1, 2, 1]
    assert frame["label"].tolist() == ["l0", "l1", "l1", "l2"]
    assert json.loads((output / "settings.json").read_text())["settings"] == SETTINGS


def test_windows_are_never_flat(tmp_path):
    output = written(tmp_path / "out", make(segment=1.0))
    assert np.load(output / "r0.wav.npy").shape == (1, 4)


def test_a_deleted_or_cut_file_is_not_done(tmp_path):
    table = make(((2,), (3,), (1,)), timestamps=True)
    output = written(tmp_path / "out", table)
    (output / "r0.wav.npy").unlink()
    assert_same(format_of(output).read(output), table.select([1, 2]))
    file = output / "sub" / "r1.wav.npy"
    file.write_bytes(file.read_bytes()[:-1])
    assert_same(format_of(output).read(output), table.select([2]))
    written(output, table)
    assert_same(format_of(output).read(output), table)


def test_files_that_stay_the_same_are_not_written_again(tmp_path):
    table = make(((2,), (3,)), timestamps=True)
    output = written(tmp_path / "out", table)
    stamp = (output / "r0.wav.npy").stat().st_ino
    more = make(((2,), (3,), (4,)), timestamps=True)
    more.recordings[1].stamp = [0, 0]
    other = (output / "sub" / "r1.wav.npy").stat().st_ino
    written(output, more)
    assert (output / "r0.wav.npy").stat().st_ino == stamp
    assert (output / "sub" / "r1.wav.npy").stat().st_ino != other
    assert format_of(output).read(output).total_rows == 9


def test_a_killed_run_of_other_settings_takes_no_new_rows_for_old_ones(tmp_path, monkeypatch):
    output = written(tmp_path / "out", make(layer=1))
    replace, left = Path.replace, [3]  # of the empty settings and index, and of one file

    def killed(self, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            written(output, make(layer=2))
    assert format_of(output).read(output).recordings == []
    assert_same(format_of(output).read(written(output, make(layer=2))), make(layer=2))


def test_other_files_are_left_alone(tmp_path):
    output = tmp_path / "out"
    (output / "sub").mkdir(parents=True)
    (output / "labels.npy").write_text("mine")
    with pytest.raises(ValueError, match="holds other files; choose another output folder"):
        written(output, make())
    (output / "labels.npy").unlink()
    (output / "sub").rmdir()
    written(output, make())
    (output / "sub" / "mine.npy").write_text("mine")
    nothing = make().select([])
    written(output, nothing)
    assert files(output) == ["index.csv", "settings.json", "sub/mine.npy"]
    assert format_of(output).read(output).recordings == []
    (output / "sub" / "mine.npy").unlink()
    written(written(output, make()), nothing)
    assert not (output / "sub").exists()


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "sub/../../outside", "link/outside"]
)
def test_nothing_outside_is_ever_touched(tmp_path, name):
    """Whatever the files of the folder say."""
    output = written(tmp_path / "out", make(((1,),), names=["r0.wav"]))
    (tmp_path / "elsewhere").mkdir()
    (output / "link").symlink_to(tmp_path / "elsewhere")
    for place in (tmp_path, tmp_path / "elsewhere"):
        (place / "outside.npy").write_text("mine")
    index = (output / "index.csv").read_text()
    (output / "index.csv").write_text(index.replace("r0.wav.npy", f"{name}.npy"))
    written(output, make(((2,),), names=["r0.wav"]))  # which does not read it
    ledger = (output / "settings.json").read_text()
    (output / "settings.json").write_text(ledger.replace('"r0.wav"', json.dumps(name)))
    for act in (format_of(output).read, lambda path: written(path, make())):
        with pytest.raises(ValueError, match=r"outside\.npy would lie outside of"):
            act(output)
    (output / "settings.json").write_text(ledger)
    with pytest.raises(ValueError, match=r"outside\.npy would lie outside of"):
        written(output, make(((1,),), names=[name]))
    for place in (tmp_path, tmp_path / "elsewhere"):
        assert (place / "outside.npy").read_text() == "mine"


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    table = make()
    output = written(tmp_path / "out", table)
    other = tmp_path / "other.npy"
    other.write_bytes((output / "r0.wav.npy").read_bytes())
    before = other.read_bytes()
    (output / "r0.wav.npy").unlink()
    (output / "r0.wav.npy").symlink_to(other)
    assert [x.name for x in format_of(output).read(output).recordings] == ["sub/r1.wav", "r2.wav"]
    written(output, make(width=8))
    assert other.read_bytes() == before
    (output / "r0.wav.npy").unlink()
    (output / "r0.wav.npy").symlink_to(other)
    written(output, table.select([]))
    assert other.read_bytes() == before


def test_names_that_a_file_system_cannot_have(tmp_path):
    names = [f"{'x' * n}.wav" for n in (237, 243, 247, 248)] + ["sub/" + "ü" * 124 + ".wav"]
    names.append("../up")
    items = [Recording(name, name=name, where=f"/{name}") for name in names]
    output = tmp_path / "out"
    problems = format_of(output).check_names(output, items)
    assert list(problems) == [3, 4, 5]
    assert problems[5] == f"../up.npy would lie outside of {output}"
    assert "longer than the 255 bytes that the file system allows" in problems[3]
    table = make([(1,)] * 3, names=names[:3])
    assert_same(format_of(output).read(written(output, table)), table)
    assert format_of("out.npz").check_names(Path("out.npz"), items) == {}


def test_two_recordings_for_one_place():
    items = [Recording("a", name="a.wav", where=f"/day{i}/a.wav") for i in (1, 2)]
    format_ = format_of("out")
    with pytest.raises(ValueError, match=r"/day1/a\.wav and /day2/a\.wav would both become a\.wav"):
        format_.check_names(Path("out"), items)
    done = Done(["/day3/a.wav", 0.0, None, None, 0], "a.wav", "a.wav")
    with pytest.raises(ValueError, match=r"/day3/a\.wav and /day1/a\.wav would both"):
        format_.check_names(Path("out"), items[:1], [done])
    assert format_.check_names(Path("out"), items[:1] * 2) == {}


def test_odd_names_in_the_folder(tmp_path):
    names = ["=1.wav", "new\nline.wav", "日本語.wav", "not-utf-\udcff8.wav", 'a b,".wav']
    table = make([(1,)] * len(names), names=names)
    for done in table.recordings:
        done.path = done.name.encode("utf-8", "backslashreplace").decode()
    output = written(tmp_path / "out", table)
    assert_same(format_of(output).read(output), table)
    with (output / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["npy"] for row in rows][:3] == [
        "./=1.wav.npy",
        "new\\nline.wav.npy",
        "日本語.wav.npy",
    ]
    assert rows[0]["path"] == "'=1.wav"


def test_a_zip_with_names_of_others_is_never_unpacked(tmp_path):
    output = written(tmp_path / "out.npz", make())
    with zipfile.ZipFile(output, "a") as file:
        file.writestr("../../outside.npy", b"x")
    assert format_of(output).read(output).total_rows == 3
    assert files(tmp_path) == ["out.npz"]


def test_arrow_types_of_columns_without_values(tmp_path):
    table = make()
    for done in table.recordings:
        done.columns = {"note": None}
    schema = pq.read_schema(written(tmp_path / "out.parquet", table))
    assert schema.field("note").type == pa.string()
