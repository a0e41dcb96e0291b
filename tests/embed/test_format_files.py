"""Outputs that are one file, read by other libraries."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from output_tables import make, whole, written

from hear_msm_mae.embed.formats import format_of


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
