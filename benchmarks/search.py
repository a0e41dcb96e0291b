"""Search in an index of many windows: exact against approximate, time, memory and recall.

    python -m benchmarks.search [--rows 100000 1000000] [--faiss] [--write]

Recordings of the evaluation sources (`benchmarks/evaluation`) are indexed as `hear-msm-mae index`
does. The index is grown to the number of rows by rows between two random windows of it, so that
neighbourhoods stay like those of recordings. Then the queries, which are windows that were left
out, look for their 10 nearest rows: in the file as `search` does, and with `--faiss` (pip install
faiss-cpu) in inverted lists of 8-bit codes as `search --approximate` does, and in an HNSW graph.
Recall is the share of the exact 10 that was found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hear_msm_mae
from benchmarks import measure
from benchmarks.evaluation.sources import source_folder
from hear_msm_mae.answers import approximate
from hear_msm_mae.answers.index import Index
from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.table import Clip, Done, Table

SOURCES = ("lmms", "scratch", "hedgewars")
QUERIES, COUNT = 50, 10
HOUR = 3600  # windows of a file
PROBED = (16, 32, 64)
MOST_HNSW = 200_000  # rows: more would take hours and all memory to build as a graph
RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = (
    "| rows | how | GB | open or build s | first query ms | ms a query, alone | ms a query of 50 "
    "| recall at 10 | peak MB |"
)


def real_windows(folder: Path) -> NDArray[np.float16]:
    """(n, d) windows of 2 s, one every second, of the evaluation sources."""
    path = folder / "real.npz"
    hear_msm_mae.index([str(source_folder(name)) for name in SOURCES], path)
    blocks = [block.rows for _, block in Index(path).table.indexed()]
    return np.concatenate(blocks).astype(np.float16)


def grown(real: NDArray[np.float16], rows: int) -> Callable[[int, int], NDArray[np.float16]]:
    """Rows between two random ones of the index; a block of them is always the same."""

    def read(first: int, count: int) -> NDArray[np.float16]:
        parts = []
        for number in range(first // HOUR, (first + count - 1) // HOUR + 1):
            generator = np.random.default_rng(number)
            a, b = generator.integers(0, len(real), (2, HOUR))
            share = generator.random((HOUR, 1), np.float32)
            parts.append((real[a] * (1 - share) + real[b] * share).astype(np.float16))
        skip = first % HOUR
        return np.concatenate(parts)[skip : skip + count]

    return read


def write(path: Path, real: NDArray[np.float16], rows: int) -> None:
    """An index of so many windows of 2 s."""
    files = -(-rows // HOUR)
    done = [Done([f"/sounds/{i}.wav", 0.0, None, None, 0], f"{i}.wav", "") for i in range(files)]
    clips = [Clip(i // HOUR, float(i % HOUR), i % HOUR + 2.0, 1) for i in range(rows)]
    settings, width = {"segment": 2.0, "overlap": 1.0}, real.shape[1]
    table = Table(done, clips, settings, width, np.dtype(np.float16), False, grown(real, rows))
    format_of(path).write(path, table)


def seconds(run: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """The best time, and the result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return min(times), result


def line(rows: int, how: str, *values: float) -> str:
    """A line of the table."""
    size, build, first, alone, together, recall, peak = values
    return (
        f"| {rows} | {how} | {size:.2f} | {build:.1f} | {1000 * first:.0f} | {1000 * alone:.0f} | "
        f"{1000 * together / QUERIES:.1f} | {recall:.3f} | {peak:.0f} |"
    )


def exact(path: Path, queries: NDArray[np.float32], rows: int) -> tuple[str, list[set[int]]]:
    """`search` in a file."""
    times: dict[str, float] = {}
    found: list[Any] = []

    def run() -> None:
        times["open"], index = seconds(lambda: Index(path), 1)
        times["first"], _ = seconds(lambda: index.nearest(queries[:1], COUNT), 1)
        times["alone"], _ = seconds(lambda: index.nearest(queries[:1], COUNT))
        times["together"], result = seconds(lambda: index.nearest(queries, COUNT), 1)
        found.extend({row for row, _ in hits} for hits in result)

    peak = measure.peak_rss_mb(run)
    values = times["open"], times["first"], times["alone"], times["together"], 1.0, peak
    return line(rows, f"exact, {path.suffix}", path.stat().st_size / 1e9, *values), found


def lists(path: Path, queries: NDArray[np.float32], rows: int, wanted: list[set[int]]) -> list[str]:
    """`search --approximate`, probing more and fewer lists."""
    index, lines = Index(path), []
    times: dict[str, float] = {}
    peak = measure.peak_rss_mb(
        lambda: times.update(build=seconds(lambda: approximate.Lists(index), 1)[0])
    )
    size = Path(f"{path}.faiss").stat().st_size / 1e9
    usual, none = approximate.PROBED, [np.zeros(0, np.int64)] * QUERIES
    for approximate.PROBED in PROBED:
        made = approximate.Lists(index)  # the lists that were kept
        one = partial(made.nearest, queries[:1], COUNT, none[:1])
        first, _ = seconds(one, 1)
        alone, _ = seconds(one)
        together, found = seconds(partial(made.nearest, queries, COUNT, none))
        share = recall([[row for row, _ in hits] for hits in found], wanted)
        how = f"approximate, {path.suffix}, {approximate.PROBED} lists"
        lines.append(line(rows, how, size, times["build"], first, alone, together, share, peak))
    approximate.PROBED = usual
    return lines


def graph(path: Path, queries: NDArray[np.float32], rows: int, wanted: list[set[int]]) -> str:
    """An HNSW graph of faiss on the same directions."""
    import faiss

    index = Index(path)
    unit = index.directions(queries).numpy()
    made = faiss.index_factory(unit.shape[1], "HNSW32", faiss.METRIC_INNER_PRODUCT)

    def fill() -> None:
        for _, block in index.table.indexed():
            made.add(index.directions(block.rows).numpy())

    start = time.perf_counter()
    peak = measure.peak_rss_mb(fill)
    build = time.perf_counter() - start
    faiss.ParameterSpace().set_index_parameter(made, "efSearch", 64)
    size = len(faiss.serialize_index(made)) / 1e9
    first, _ = seconds(lambda: made.search(unit[:1], COUNT), 1)
    alone, _ = seconds(lambda: made.search(unit[:1], COUNT))
    together, (_, found) = seconds(lambda: made.search(unit, COUNT))
    values = size, build, first, alone, together, recall(found, wanted), peak
    return line(rows, "faiss HNSW32, efSearch 64", *values)


def recall(found: Any, wanted: list[set[int]]) -> float:
    """Share of the wanted rows that were found."""
    return float(np.mean([len(set(a) & b) / COUNT for a, b in zip(found, wanted, strict=True)]))


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--formats", nargs="+", default=[".npz", ".parquet"])
    parser.add_argument("--faiss", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        real = real_windows(Path(folder))
        chosen = np.random.default_rng(0).permutation(len(real))
        queries, real = real[chosen[:QUERIES]].astype(np.float32), real[chosen[QUERIES:]]
        about = f"{len(real)} windows of {', '.join(SOURCES)}, {real.shape[1]} values"
        lines = [
            f"{about}; {measure.machine()}",
            "",
            HEADER,
            "|" + "---|" * (HEADER.count("|") - 1),
        ]
        print("\n".join(lines), flush=True)
        for rows in given.rows:
            for suffix in given.formats:
                path = Path(folder) / f"index{suffix}"
                write(path, real, rows)
                text, wanted = exact(path, queries, rows)
                found = [text]
                if given.faiss and (rows <= MOST_HNSW or suffix == given.formats[0]):
                    found += lists(path, queries, rows, wanted)
                if given.faiss and rows <= MOST_HNSW and suffix == given.formats[0]:
                    found.append(graph(path, queries, rows, wanted))
                print("\n".join(found), flush=True)
                lines += found
                if given.write:  # as far as it got: the whole of it takes hours
                    measure.write_section(RESULTS, "search", "\n".join(lines))
                for left in (path, Path(f"{path}.faiss")):
                    left.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
