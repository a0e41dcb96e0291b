"""Formats of the output: what they are chosen by, NPZ files and folders of NPY files."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio import printable
from ..checkpoint import replacing
from .content import Block, Clip, Content, with_file_ends
from .inputs import Task
from .tables import Hdf5, Parquet

_READ_BYTES = 2**24  # read at once


class Format(Protocol):
    """A kind of output. Reading and writing take memory for a block of rows, not for all."""

    def check(self) -> None:
        """Raise ValueError when a package is missing."""

    def read(self, path: Path) -> Content:
        """What is there; ValueError when it was not written by this package."""

    def write(self, path: Path, content: Content) -> None:
        """Replace what is there; OSError, and the old state, when that fails."""


def format_of(output: str | Path) -> Format:
    """The format that an output's ending asks for.

    Raises:
        ValueError: an unknown ending; the message lists the known ones.
    """
    text = os.fspath(output)
    suffix = Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or not suffix or os.path.isdir(text):
        return NpyFolder()
    formats: dict[str, Format] = {
        ".npz": Npz(),
        ".parquet": Parquet(),
        ".h5": Hdf5(),
        ".hdf5": Hdf5(),
    }
    if suffix not in formats:
        raise ValueError(
            f"--output must end in .parquet, .npz or .h5, or be a folder for .npy files (no "
            f"ending, or a slash behind it), got {printable(text)!r}"
        )
    return formats[suffix]


def whole_files(content: Content) -> bool:
    """Whether there is one clip per file, which begins with the file."""
    return not content.settings["stretches"] and content.settings["segment"] is None


# ---------------------------------------------------------------------------------------------
# NPZ
# ---------------------------------------------------------------------------------------------
class Npz:
    """One .npz file: `paths`, `seconds`, `embeddings` (r, d); for timestamps `timestamps` in ms and
    `clip`, the index into `paths`, for each row; `start` in seconds where clips are parts of files,
    and `file_end` where single stretches were asked for (see `Clip`).

    The settings are the comment of the zip file.
    """

    def check(self) -> None:
        """Needs nothing."""

    def read(self, path: Path) -> Content:
        """See `Format`."""
        try:
            with zipfile.ZipFile(path) as file:
                settings = json.loads(file.comment)
            with np.load(path, allow_pickle=False) as arrays:
                paths, seconds = arrays["paths"].tolist(), arrays["seconds"]
                starts = arrays["start"] if "start" in arrays else np.zeros(len(paths))
                counts = np.ones(len(paths), int)
                times, ends = arrays.get("timestamps"), arrays.get("file_end")
                if times is not None:
                    counts = np.bincount(arrays["clip"], minlength=len(paths))
            with zipfile.ZipFile(path) as file, file.open("embeddings.npy") as member:
                (rows, width), dtype = _header(member)
        except (zipfile.BadZipFile, ValueError, KeyError) as error:
            raise ValueError(f"it is not a file of this command ({error})") from error
        clips = [
            Clip(name, start, start + length, count, "")
            for name, start, length, count in zip(
                paths, starts.tolist(), seconds.tolist(), counts.tolist(), strict=True
            )
        ]
        clips = with_file_ends(clips, settings, ends)

        def blocks() -> Iterator[Block]:
            done, step = 0, max(1, _READ_BYTES // (width * dtype.itemsize))
            with zipfile.ZipFile(path) as file, file.open("embeddings.npy") as member:
                _header(member)
                while done < rows:
                    size = min(step, rows - done)
                    part = np.frombuffer(member.read(size * width * dtype.itemsize), dtype)
                    now = None if times is None else times[done : done + size]
                    yield Block(part.reshape(size, width), now)
                    done += size

        return Content(clips, settings, width, dtype, times is not None, blocks)

    def write(self, path: Path, content: Content) -> None:
        """See `Format`."""
        clips = content.clips
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file,
        ):
            file.comment = json.dumps(content.settings).encode()
            _add(file, "paths", np.array([clip.path for clip in clips]))
            _add(file, "seconds", np.array([clip.end - clip.start for clip in clips]))
            if not whole_files(content):
                _add(file, "start", np.array([clip.start for clip in clips]))
            if content.settings["stretches"]:
                _add(file, "file_end", np.array([clip.file_end for clip in clips]))
            index, times = [], []
            with file.open("embeddings.npy", "w", force_zip64=True) as member:
                _start_npy(member, (content.total_rows, content.width), content.dtype)
                for numbers, block in content.indexed():
                    member.write(np.ascontiguousarray(block.rows).data)
                    if block.times_ms is not None:
                        index.append(numbers)
                        times.append(block.times_ms)
            if content.timestamps:
                _add(file, "timestamps", np.concatenate(times))
                _add(file, "clip", np.concatenate(index))


def _add(file: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = reader(file)
    return shape, dtype


def _start_npy(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


# ---------------------------------------------------------------------------------------------
# Folder of NPY files
# ---------------------------------------------------------------------------------------------
INDEX = (
    *("path", "npy", "start", "end", "file_end"),
    *("first_row", "rows", "first_timestamp_ms", "hop_ms"),
)


class NpyFolder:
    """A folder with one `.npy` file per recording, in the tree of the input: a.wav -> a.wav.npy.

    (d,) for a scene embedding, else (r, d). `index.csv` says which rows are which clip and, for
    timestamps, where in the file they lie; `settings.json` how they were made.
    """

    def check(self) -> None:
        """Needs nothing."""

    def read(self, path: Path) -> Content:
        """See `Format`."""
        try:
            settings = json.loads((path / "settings.json").read_text())
            with open(
                path / "index.csv", newline="", encoding="utf-8", errors="surrogateescape"
            ) as f:
                index = list(csv.DictReader(f))
            clips = [
                Clip(
                    row["path"],
                    float(row["start"]),
                    float(row["end"]),
                    int(row["rows"]),
                    row["npy"].removesuffix(".npy"),
                )
                for row in index
            ]
            clips = with_file_ends(clips, settings, [row["file_end"] == "1" for row in index])
            width, dtype = settings["width"], np.dtype(settings["dtype"])
            timestamps = settings["timestamps"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"it is not a folder of this command ({error})") from error

        def blocks() -> Iterator[Block]:
            for clip, row in zip(clips, index, strict=True):
                rows = np.load(path / row["npy"], mmap_mode="r").reshape(-1, width)
                first = int(row["first_row"])
                times: NDArray[np.float64] | None = None
                if timestamps:
                    start, hop = float(row["first_timestamp_ms"]), float(row["hop_ms"])
                    times = start + hop * np.arange(clip.rows, dtype=np.float64)
                yield Block(np.asarray(rows[first : first + clip.rows]), times)

        return Content(clips, settings, width, dtype, timestamps, blocks)

    def write(self, path: Path, content: Content) -> None:
        """See `Format`. Files that are there stay readable: each is replaced as a whole."""
        check_names(content.clips)
        path.mkdir(parents=True, exist_ok=True)
        if not (path / "index.csv").exists() and any(path.iterdir()):
            raise ValueError(f"{printable(path)} holds other files; choose another output folder")
        flat = whole_files(content) and not content.timestamps
        rows_of: dict[str, int] = {}
        for clip in content.clips:
            rows_of[clip.name] = rows_of.get(clip.name, 0) + clip.rows
        times = [np.empty(0)] * len(content.clips)
        pieces = content.indexed()
        numbers, block = np.empty(0, np.int64), Block(np.empty((0, content.width)), None)
        rest: NDArray[np.float64] | None
        for name, rows in rows_of.items():
            with replacing(path / f"{name}.npy") as temporary, temporary.open("wb") as file:
                _start_npy(file, (content.width,) if flat else (rows, content.width), content.dtype)
                while rows:
                    if not len(numbers):
                        numbers, block = next(pieces)
                    part = block.rows[:rows]
                    file.write(np.ascontiguousarray(part).data)
                    if block.times_ms is not None:
                        for index in np.unique(numbers[: len(part)]):
                            own = block.times_ms[: len(part)][numbers[: len(part)] == index]
                            times[index] = np.concatenate([times[index], own])
                    rows -= len(part)
                    rest = None if block.times_ms is None else block.times_ms[len(part) :]
                    numbers, block = numbers[len(part) :], Block(block.rows[len(part) :], rest)
        settings = content.settings | {"width": content.width}
        with replacing(path / "settings.json") as temporary:
            temporary.write_text(json.dumps(settings, indent=1))
        with (
            replacing(path / "index.csv") as temporary,
            _open_index(temporary, "w") as table,
        ):
            writer = csv.writer(table)
            writer.writerow(INDEX)
            writer.writerows(_index(content, times))


def _open_index(path: Path, mode: str) -> IO[Any]:
    # Names of the tree keep bytes that are not UTF-8.
    return open(path, mode, newline="", encoding="utf-8", errors="surrogateescape")


def _index(content: Content, times: list[NDArray[np.float64]]) -> Iterator[tuple[Any, ...]]:
    first: dict[str, int] = {}
    for clip, own in zip(content.clips, times, strict=True):
        row = first.get(clip.name, 0)
        first[clip.name] = row + clip.rows
        at: tuple[Any, Any] = ("", "")
        if content.timestamps:
            at = float(own[0]), float(own[1] - own[0]) if len(own) > 1 else 0.0
        place = clip.path, f"{clip.name}.npy", clip.start, clip.end, int(clip.file_end)
        yield *place, row, clip.rows, *at


def check_names(items: Iterable[Clip | Task]) -> None:
    """Each recording needs a place of its own in the folder, and its clips side by side.

    Raises:
        ValueError: it is not so.
    """
    owners: dict[str, str] = {}
    last = ""
    for item in items:
        other = owners.get(item.name)
        if other is not None and other != item.path:
            raise ValueError(
                f"{printable(other)} and {printable(item.path)} would both become "
                f"{printable(item.name)}.npy; embed their folders one by one, or their parent"
            )
        if other is not None and item.name != last:
            raise ValueError(f"{item.path} was embedded in several goes; pass --overwrite")
        owners[item.name] = item.path
        last = item.name
