"""Search in an index of many windows: exact against approximate, time, memory and recall.

    python -m benchmarks.search INDEX [--rows 100000 1000000] [--faiss] [--write]

INDEX is an output of `hear-msm-mae index` on real recordings. It is grown to the number of rows by
rows between two random windows of it, so that neighbourhoods stay like those of recordings. Then
the queries, which are windows that were left out, look for their 10 nearest rows: in the file as
`search` does, and with `--faiss` (pip install faiss-cpu) in an HNSW graph and in inverted lists of
8-bit codes over the same unit vectors. Recall is the share of the exact 10 that was found.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from hear_msm_mae.answers.index import Index
from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.table import Block, Clip, Done, Table

QUERIES, COUNT = 50, 10
HOUR = 3600  # windows of a file
MOST_HNSW = 200_000  # rows: more would take hours and all memory to build
RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = (
    "| rows | how | GB | open or build s | ms a query, alone | ms a query of 50 | recall at 10 "
    "| peak MB |"
)


def grown(real: NDArray[np.float16], rows: int) -> Callable[[int, int], Block]:
    """Rows between two random ones of the index; a block of them is always the same."""

    def rows_of(first: int, count: int) -> Block:
        parts = []
        for number in range(first // HOUR, (first + count - 1) // HOUR + 1):
            generator = np.random.default_rng(number)
            a, b = generator.integers(0, len(real), (2, HOUR))
            share = generator.random((HOUR, 1), np.float32)
            parts.append((real[a] * (1 - share) + real[b] * share).astype(np.float16))
        skip = first % HOUR
        return Block(np.concatenate(parts)[skip : skip + count], None)

    return rows_of


def write(path: Path, real: NDArray[np.float16], rows: int) -> None:
    """An index of so many windows of 2 s."""
    files = -(-rows // HOUR)
    done = [Done([f"/sounds/{i}.wav", 0.0, None, None, 0], f"{i}.wav", "") for i in range(files)]
    clips = [Clip(i // HOUR, float(i % HOUR), i % HOUR + 2.0, 1) for i in range(rows)]
    how: tuple[Any, ...] = {"segment": 2.0, "overlap": 1.0}, real.shape[1], np.dtype(np.float16)
    table = Table(done, clips, *how, False, rows_of=grown(real, rows))
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
    size, build, alone, together, recall, peak = values
    return (
        f"| {rows} | {how} | {size:.2f} | {build:.1f} | {1000 * alone:.0f} | "
        f"{1000 * together / QUERIES:.1f} | {recall:.3f} | {peak:.0f} |"
    )


def exact(path: Path, queries: NDArray[np.float32], rows: int) -> tuple[str, list[set[int]]]:
    """`search` in a file."""
    times: dict[str, float] = {}
    found: list[Any] = []

    def run() -> None:
        times["open"], index = seconds(lambda: Index(path), 1)
        times["alone"], _ = seconds(lambda: index.nearest(queries[:1], COUNT))
        times["together"], result = seconds(lambda: index.nearest(queries, COUNT), 1)
        found.extend({row for row, _ in hits} for hits in result)

    peak = measure.peak_rss_mb(run)
    values = times["open"], times["alone"], times["together"], 1.0, peak
    return line(rows, f"exact, {path.suffix}", path.stat().st_size / 1e9, *values), found


def fill(made: Any, index: Index, sample: int) -> None:
    """Train an index of faiss on so many rows, and add all of them."""
    if not made.is_trained:
        step = max(1, index.table.total_rows // sample)
        parts = [index.directions(b.rows[::step]).numpy() for _, b in index.table.indexed()]
        made.train(np.concatenate(parts))
    for _, block in index.table.indexed():
        made.add(index.directions(block.rows).numpy())


def approximate(
    path: Path, queries: NDArray[np.float32], rows: int, wanted: list[set[int]]
) -> list[str]:
    """faiss on the same directions."""
    import faiss

    index = Index(path)
    unit = index.directions(queries).numpy()
    width = unit.shape[1]
    lists = int(rows**0.5)
    lines = []
    kinds: list[tuple[str, str, tuple[int, ...]]] = [(f"IVF{lists},SQ8", "nprobe", (16, 32, 64))]
    if rows <= MOST_HNSW:
        kinds.append(("HNSW32", "efSearch", (64,)))
    for factory, option, values in kinds:
        gc.collect()
        made = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        start = time.perf_counter()
        peak = measure.peak_rss_mb(lambda made=made: fill(made, index, 40 * lists))
        build = time.perf_counter() - start
        size = len(faiss.serialize_index(made)) / 1e9
        for value in values:
            faiss.ParameterSpace().set_index_parameter(made, option, value)
            alone, _ = seconds(lambda made=made: made.search(unit[:1], COUNT))
            together, (_, found) = seconds(lambda made=made: made.search(unit, COUNT))
            recall = np.mean([len(set(a) & b) / COUNT for a, b in zip(found, wanted, strict=True)])
            name = f"faiss {factory}, {option} {value}"
            lines.append(line(rows, name, size, build, alone, together, float(recall), peak))
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--formats", nargs="+", default=[".npz", ".parquet"])
    parser.add_argument("--faiss", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    source = Index(given.index)
    real = np.concatenate([block.rows for _, block in source.table.indexed()]).astype(np.float16)
    chosen = np.random.default_rng(0).permutation(len(real))
    queries, real = real[chosen[:QUERIES]].astype(np.float32), real[chosen[QUERIES:]]
    about = f"{len(real)} windows of real recordings, {real.shape[1]} values; {measure.machine()}"
    lines = [about, "", HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    print("\n".join(lines), flush=True)
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            for suffix in given.formats:
                path = Path(folder) / f"index{suffix}"
                write(path, real, rows)
                text, wanted = exact(path, queries, rows)
                print(text, flush=True)
                lines.append(text)
            if given.faiss:
                lines += approximate(path, queries, rows, wanted)
    if given.write:
        measure.write_section(RESULTS, "search", "\n".join(lines))


if __name__ == "__main__":
    main()
