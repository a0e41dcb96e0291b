"""Tables of embeddings for tests of output formats: made, compared, written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.table import Clip, Done, Table

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
