"""`embed` to an output, and the rows that it holds and should hold."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pandas
from hear_msm_mae.embed.target import Target

from hear_msm_mae import embed_files
from hear_msm_mae.embed.run import Summary, embed_to
from hear_msm_mae.embed.settings import settings_of

SUFFIXES = (".parquet", ".npz", ".h5", "")


class Stopped(Exception):
    """What `stop_after` raises."""


def stop_after(monkeypatch, batches: int) -> None:
    """Runs end with an exception behind so many batches; the output is not updated before."""
    append = Target.append
    left = [batches]

    def limited(self, tasks, batch):
        if not left[0]:
            raise Stopped
        left[0] -= 1
        self._cost = float("inf")
        append(self, tasks, batch)

    monkeypatch.setattr(Target, "append", limited)


def embed(output, sources, model, **options) -> Summary:
    more = ("batch_seconds", "workers", "overwrite")
    settings = settings_of(model, "tiny", **{k: v for k, v in options.items() if k not in more})
    sources = sources if isinstance(sources, list) else [sources]
    return embed_to(
        output, sources, model, settings, **{k: options[k] for k in more if k in options}
    )


def table(output: Path) -> list[tuple]:
    """(path, start, end, time, vector) of each row, in order, read without this package."""
    if output.suffix == ".parquet":
        frame = pandas.read_parquet(output)
        times = frame.get("timestamp_ms", pandas.Series([None] * len(frame)))
        columns = (frame["path"], frame["start"], frame["end"], times, frame["embedding"])
        return list(zip(*columns, strict=True))
    if output.suffix == "":
        return [row for line in index_of(output) for row in rows_of(output, line)]
    with h5py.File(output) if output.suffix == ".h5" else np.load(output) as file:
        arrays = {name: file[name][:] for name in file}
    paths = [p.decode() if isinstance(p, bytes) else p for p in arrays["paths"].tolist()]
    starts = arrays.get("start", np.zeros(len(paths)))
    clip = arrays.get("clip", np.arange(len(paths)))
    times = arrays.get("timestamps", [None] * len(clip))
    return [
        (paths[c], starts[c], starts[c] + arrays["seconds"][c], t, vector)
        for c, t, vector in zip(clip, times, arrays["embeddings"], strict=True)
    ]


def index_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "index.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
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


def assert_same(rows: list[tuple], expected: list[tuple], any_order: bool = False) -> None:
    if any_order:
        rows, expected = (sorted(x, key=lambda row: row[:4]) for x in (rows, expected))
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
