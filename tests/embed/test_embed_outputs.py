"""Outputs of `embed`: each format, read by other libraries."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from embed_rows import SUFFIXES, assert_same, embed, expected_table, table
from hear_msm_mae.embed.outputs import format_of

from hear_msm_mae.audio import read_audio


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
    summary = embed(output, recordings, tiny_model, batch_seconds=4.0, **options)
    assert (summary.files, summary.done, summary.earlier, summary.failures) == (10, 10, 0, [])
    assert summary.seconds == pytest.approx(0.5 * 55, rel=0.01)
    rows = table(output)
    assert_same(rows, expected_table(recordings, tiny_model, **options))
    dtype = options.get("dtype", "float32")
    assert {vector.dtype for *_, vector in rows} == {np.dtype(dtype)}
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted([output.name, "recordings"])
    # What is read back is what was written.
    content = format_of(output).read(output)
    assert content.total_rows == len(rows)
    blocks = [block for _, block in content.indexed()]
    vectors = np.concatenate([block.rows for block in blocks])
    np.testing.assert_array_equal(vectors, np.stack([row[4] for row in rows]))
    if options.get("timestamps"):
        times = np.concatenate([block.times_ms for block in blocks])
        np.testing.assert_allclose(times, [row[3] for row in rows], rtol=1e-12)


def test_parquet_types(recordings, tiny_model, tmp_path):
    for dtype, shown in (("float32", "float"), ("float16", "halffloat")):
        output = tmp_path / f"{dtype}.parquet"
        embed(output, recordings, tiny_model, timestamps=True, dtype=dtype)
        schema = pq.read_schema(output)
        types = {name: str(schema.field(name).type) for name in schema.names}
        assert types == {
            "path": "string",
            "start": "double",
            "end": "double",
            "timestamp_ms": "double",
            "embedding": f"fixed_size_list<element: {shown}>[160]",
        }


def test_parquet_in_polars_and_duckdb(recordings, tiny_model, tmp_path):
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    output = tmp_path / "out.parquet"
    embed(output, recordings, tiny_model)
    expected = np.stack([row[4] for row in table(output)])
    np.testing.assert_array_equal(polars.read_parquet(output)["embedding"].to_numpy(), expected)
    rows = duckdb.sql(f"select embedding from '{output}'").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in rows], np.float32), expected)


def test_the_folder_mirrors_the_tree(recordings, tiny_model, tmp_path):
    output = tmp_path / "out"
    embed(output, recordings, tiny_model)
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*.npy"))
    assert files == [*(f"{i}.wav.npy" for i in range(9)), "sub/9.wav.npy"]
    assert np.load(output / "sub" / "9.wav.npy").shape == (160,)


def test_two_files_for_one_place_in_the_folder(recordings, tiny_model, tmp_path):
    sources = [recordings / "0.wav", recordings, tmp_path / "other"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.wav").write_bytes((recordings / "0.wav").read_bytes())
    with pytest.raises(ValueError, match=r"0\.wav and .*0\.wav would both become 0\.wav\.npy"):
        embed(tmp_path / "out", sources, tiny_model)


def test_settings_are_in_the_output(recordings, tiny_model, tmp_path):
    output = tmp_path / "out.parquet"
    embed(output, recordings, tiny_model, timestamps=True)
    settings = json.loads(pq.read_schema(output).metadata[b"hear_msm_mae"])
    assert settings["hop_ms"] == 40
    assert settings["weights_name"] == "tiny"


def test_rows_are_those_of_the_file(recordings, tiny_model, tmp_path):
    """Closing the circle: file -> output -> the HEAR function on the same samples."""
    from hear_msm_mae import get_scene_embeddings

    embed(tmp_path / "out.parquet", recordings, tiny_model)
    frame = pandas.read_parquet(tmp_path / "out.parquet")
    for path, end, vector in zip(frame["path"], frame["end"], frame["embedding"], strict=True):
        audio = read_audio(path)
        assert end == len(audio) / 16000
        expected = get_scene_embeddings(audio[None], tiny_model)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5)
