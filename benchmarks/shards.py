"""Why `prepare` writes memory-mapped arrays: crops per second from three layouts of one corpus.

    python -m benchmarks.shards [--hours 10] [--write]

- memory-mapped arrays: clips one behind the other in .npy shards, a crop is a slice (`Corpus`)
- webdataset: tar files of one .npy member per clip, read from front to back with its library and
  a shuffle buffer of 1000 clips; each clip that passes gives one crop
- one .npy file per clip, opened for each crop

Half of the clips last 10 s, half of them 60 s. Each layout is read twice: with its files dropped
from the page cache (`posix_fadvise`), and again. Needs `pip install webdataset`.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import measure

RESULTS = Path(__file__).with_name("RESULTS.md")
CROP, MELS = 208, 80
SHARD_FRAMES = 2**21
CROPS = 4000


def clips(hours: float) -> Iterator[np.ndarray]:
    """(t, f) float16 noise, 10 s and 60 s in turn."""
    generator = np.random.default_rng(0)
    block = generator.normal(-8, 4, (12_000, MELS)).astype(np.float16)
    done = number = 0
    while done < hours * 360_000:
        length = (1000, 6000)[number % 2]
        start = int(generator.integers(len(block) - length + 1))
        yield block[start : start + length]
        done += length
        number += 1


def write_mapped(folder: Path, hours: float) -> list[tuple[int, int, int]]:
    """Shards; returns (shard, offset, frames) of each clip."""
    index, held, shard, offset = [], [], 0, 0
    for clip in clips(hours):
        index.append((shard, offset, len(clip)))
        held.append(clip)
        offset += len(clip)
        if offset >= SHARD_FRAMES:
            np.save(folder / f"{shard}.npy", np.concatenate(held))
            held, shard, offset = [], shard + 1, 0
    if held:
        np.save(folder / f"{shard}.npy", np.concatenate(held))
    return index


def write_tar(folder: Path, hours: float) -> None:
    """webdataset shards of about as many bytes."""
    remaining = enumerate(clips(hours))
    for shard in itertools.count():
        frames = 0
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as archive:
            for i, clip in remaining:
                data = io.BytesIO()
                np.save(data, clip)
                member = tarfile.TarInfo(f"{i:06d}.npy")
                member.size = data.tell()
                data.seek(0)
                archive.addfile(member, data)
                frames += len(clip)
                if frames >= SHARD_FRAMES:
                    break
            else:
                return


def write_files(folder: Path, hours: float) -> int:
    count = 0
    for count, clip in enumerate(clips(hours), start=1):
        np.save(folder / f"{count - 1}.npy", clip)
    return count


def crop_of(frames: np.ndarray, draw: random.Random) -> np.ndarray:
    start = draw.randrange(len(frames) - CROP + 1)
    return np.ascontiguousarray(frames[start : start + CROP].T)


def read_mapped(folder: Path, index: list[tuple[int, int, int]]) -> None:
    draw = random.Random(1)
    maps = {i: np.asarray(np.load(folder / f"{i}.npy", mmap_mode="r")) for i, *_ in index}
    for shard, offset, length in draw.choices(index, [x[2] for x in index], k=CROPS):
        crop_of(maps[shard][offset : offset + length], draw)


def read_tar(folder: Path) -> None:
    try:
        import webdataset
    except ImportError:
        sys.exit("this benchmark needs webdataset: pip install webdataset")
    draw = random.Random(1)
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    dataset = webdataset.WebDataset(urls, shardshuffle=False).repeat()
    stream = iter(dataset.shuffle(1000, initial=1000, rng=draw).decode().to_tuple("npy"))
    for _ in range(CROPS):
        (frames,) = next(stream)
        crop_of(frames, draw)


def read_files(folder: Path, count: int) -> None:
    draw = random.Random(1)
    for _ in range(CROPS):
        crop_of(np.load(folder / f"{draw.randrange(count)}.npy", mmap_mode="r"), draw)


def drop_cache(folder: Path) -> None:
    """Write the files out and take them from the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rates(folder: Path, read: Callable[[], None]) -> tuple[float, float]:
    """Crops per second from the disk and from the page cache."""
    result = []
    for cold in (True, False):
        if cold:
            drop_cache(folder)
        start = time.perf_counter()
        read()
        result.append(CROPS / (time.perf_counter() - start))
    return result[0], result[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    options = parser.parse_args()
    lines = [
        f"{CROPS} crops of {CROP} frames from {options.hours:g} h; {measure.machine()}\n",
        "| layout | crops/s from disk | crops/s from page cache |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as root:
        for name in ("memory-mapped arrays", "webdataset", "one file per clip"):
            folder = Path(root) / name
            folder.mkdir()
            if name == "webdataset":
                write_tar(folder, options.hours)
                cold, warm = rates(folder, lambda f=folder: read_tar(f))  # type: ignore[misc]
            elif name == "one file per clip":
                count = write_files(folder, options.hours)
                cold, warm = rates(folder, lambda f=folder, n=count: read_files(f, n))  # type: ignore[misc]
            else:
                index = write_mapped(folder, options.hours)
                cold, warm = rates(folder, lambda f=folder, x=index: read_mapped(f, x))  # type: ignore[misc]
            lines.append(f"| {name} | {cold:.0f} | {warm:.0f} |")
    text = "\n".join(lines)
    print(text)
    if options.write:
        measure.write_section(RESULTS, "shards", text)


if __name__ == "__main__":
    main()
