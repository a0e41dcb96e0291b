"""Search in an index of many windows: exact against approximate, time, memory and recall.

    python -m benchmarks.search [--rows 100000 1000000] [--faiss] [--write]

Recordings of the evaluation sources (`benchmarks/evaluation`) are indexed as `hear-msm-mae index`
does. The index is grown to the number of rows by rows between two random windows of it, so that
neighbourhoods stay like those of recordings. Then the queries, which are windows that were left
out, look for their 10 nearest rows: in the file as `search` does, and with `--faiss` (pip install
faiss-cpu) in inverted lists of 8-bit codes as `search --approximate` does, and in an HNSW graph.
Recall is the share of the exact 10 that was found. Times are processor time of all threads; the
peak counts the pages of `.npz` that are mapped into memory, which the system may drop.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
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


def seconds(run: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """The least processor time, and the result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def measured(
    how: str, queries: NDArray[np.float32], wanted: list[set[int]], make: Callable[[], Any]
) -> str:
    """A line of the table without rows and size.

    Args:
        wanted: true rows of each query; the exact search comes first and fills it.
        make: opens or builds what has `nearest`.
    """
    hidden = [np.zeros(0, np.int64)] * QUERIES
    times: list[float] = []
    found: list[list[int]] = []

    def run() -> None:
        build, index = seconds(make)
        first, _ = seconds(lambda: index.nearest(queries[:1], COUNT, hidden[:1]))
        alone, _ = seconds(lambda: index.nearest(queries[:1], COUNT, hidden[:1]), 3)
        together, hits = seconds(lambda: index.nearest(queries, COUNT, hidden))
        found.extend([row for row, _ in each] for each in hits)
        times.extend((build, 1000 * first, 1000 * alone, 1000 * together / QUERIES))

    peak = measure.peak_rss_mb(run)
    wanted += [set(rows) for rows in found] if not wanted else []
    recall = np.mean([len(set(a) & b) / COUNT for a, b in zip(found, wanted, strict=True)])
    build, first, alone, together = times
    return f"{build:.1f} | {first:.0f} | {alone:.0f} | {together:.1f} | {recall:.3f} | {peak:.0f} |"


class Graph:
    """An HNSW graph of faiss on the directions of an index."""

    def __init__(self, index: Index) -> None:
        import faiss

        self.index = index
        self.made = faiss.index_factory(index.table.width, "HNSW32", faiss.METRIC_INNER_PRODUCT)
        for _, block in index.table.indexed():
            self.made.add(index.directions(block.rows).numpy())
        faiss.ParameterSpace().set_index_parameter(self.made, "efSearch", 64)

    def nearest(self, queries: NDArray[np.float32], count: int, _: Any) -> list[Any]:
        """As that of `Index`."""
        scores, rows = self.made.search(self.index.directions(queries).numpy(), count)
        return [list(zip(*each, strict=True)) for each in zip(rows, scores, strict=True)]


def lines_of(path: Path, queries: NDArray[np.float32], lists: bool, graph: bool) -> Iterator[str]:
    """A line for each way to search in a file."""
    index, wanted, usual = Index(path), list[set[int]](), approximate.PROBED

    def line(how: str, file: Path, make: Callable[[], Any]) -> str:
        cells = measured(how, queries, wanted, make)
        size = file.stat().st_size / 1e9 if file.exists() else 0
        return f"| {index.table.total_rows} | {how} | {size:.2f} | {cells}"

    yield line(f"exact, {path.suffix}", path, lambda: Index(path))
    for approximate.PROBED in PROBED if lists else ():  # the first builds, the others open
        how = f"approximate, {path.suffix}, {approximate.PROBED} lists"
        yield line(how, Path(f"{path}.faiss"), lambda: approximate.Lists(index))
    approximate.PROBED = usual
    if graph:
        yield line("faiss HNSW32, efSearch 64, in memory", Path(), lambda: Graph(index))


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
                small = rows <= MOST_HNSW
                first = suffix == given.formats[0]
                lists, graph = given.faiss and (small or first), given.faiss and small and first
                for text in lines_of(path, queries, lists, graph):
                    print(text, flush=True)
                    lines.append(text)
                if given.write:  # as far as it got: the whole of it takes hours
                    measure.write_section(RESULTS, "search", "\n".join(lines))
                for left in (path, Path(f"{path}.faiss")):
                    left.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
