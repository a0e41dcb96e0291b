"""`embed` to an output, and the rows that it holds and should hold."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import h5py
import numpy as np
import pandas

from hear_msm_mae import embed_files, timeline
from hear_msm_mae import model as engine
from hear_msm_mae.embed import store
from hear_msm_mae.embed.run import Summary, embed_to
from hear_msm_mae.embed.settings import settings_of
from hear_msm_mae.embed.store import Store

SUFFIXES = (".parquet", ".npz", ".h5", ".duckdb", "")
RUN_OPTIONS = ("channel", "workers", "overwrite", "flush_minutes", "embed")


class Stopped(Exception):
    """What `stop_after` raises."""


def small_pieces(monkeypatch) -> None:
    """Pieces of one unit that are encoded one by one, and stored at once."""
    monkeypatch.setattr(timeline, "PIECE_FRAMES", 1)
    monkeypatch.setattr(engine, "CPU_FRAMES", 1)
    monkeypatch.setattr(store, "FLUSH_SECONDS", -1.0)
    # Layouts depend on the length of pieces.
    layout = functools.lru_cache(timeline.Timeline.layout.__wrapped__)
    monkeypatch.setattr(timeline.Timeline, "layout", layout)


def stop_after(monkeypatch, results: int) -> None:
    """Runs end with an exception behind so many results."""
    add = Store.add
    left = [results]

    def limited(self, result):
        if not left[0]:
            raise Stopped
        left[0] -= 1
        add(self, result)

    monkeypatch.setattr(Store, "add", limited)


def embed(output, sources, model, **options) -> Summary:
    run = {name: options.pop(name) for name in RUN_OPTIONS if name in options}
    settings = settings_of(model, "tiny", **options)
    return embed_to(output, sources, model, settings, **run)


def table(output: Path) -> list[tuple]:
    """(path, start, end, time, vector) of each row, in order, read without this package."""
    if output.suffix in (".parquet", ".duckdb"):
        frame = frame_of(output)
        times = frame.get("timestamp_ms", pandas.Series([None] * len(frame)))
        columns = (frame["path"], frame["start"], frame["end"], times, frame["embedding"])
        return list(zip(*columns, strict=True))
    if output.suffix == "":
        return [row for line in index_of(output) for row in rows_of(output, line)]
    with h5py.File(output) if output.suffix == ".h5" else np.load(output) as file:
        arrays = {name: file[name][:] for name in file}
    paths = [p.decode() if isinstance(p, bytes) else p for p in arrays["paths"].tolist()]
    clip = arrays.get("clip", np.arange(len(paths)))
    times = arrays.get("timestamps", [None] * len(clip))
    return [
        (paths[c], arrays["start"][c], arrays["start"][c] + arrays["seconds"][c], t, vector)
        for c, t, vector in zip(clip, times, arrays["embeddings"], strict=True)
    ]


def frame_of(output: Path) -> pandas.DataFrame:
    if output.suffix == ".parquet":
        return pandas.read_parquet(output)
    import duckdb

    with duckdb.connect(str(output), read_only=True) as file:
        return file.sql("select * from embeddings").df()


def index_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of(folder: Path, line: dict[str, str]):
    array = np.atleast_2d(np.load(folder / line["npy"]))
    first = int(line["first_row"])
    for i, vector in enumerate(array[first : first + int(line["rows"])]):
        ms = line["first_timestamp_ms"]
        at = float(ms) + i * float(line["hop_ms"]) if ms else None
        yield line["path"], float(line["start"]), float(line["end"]), at, vector


def expected_table(sources, model, **options) -> list[tuple]:
    rows = []
    for record in embed_files(sources, model, **options):
        timed = record.timestamps_ms is not None
        vectors = record.embedding if timed else [record.embedding]
        times = record.timestamps_ms if timed else [None]
        rows += [
            (record.path, record.start, record.end, *x) for x in zip(times, vectors, strict=True)
        ]
    return rows


def assert_same(rows: list[tuple], expected: list[tuple]) -> None:
    assert [row[0] for row in rows] == [row[0] for row in expected]
    for column in (1, 2, 3):
        values, wanted = ([row[column] for row in x] for x in (rows, expected))
        if wanted and wanted[0] is None:
            assert set(values) == {None}
        else:
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        np.stack([row[4] for row in rows]).astype(np.float32),
        np.stack([row[4] for row in expected]).astype(np.float32),
        atol=2e-3 if rows[0][4].dtype == np.float16 else 1e-5,
    )
