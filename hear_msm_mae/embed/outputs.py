"""Formats of the output: what they are chosen by, and folders of NPY files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..files import printable, replacing
from .content import Block, Clip, Content, whole_files, with_file_ends
from .inputs import Task
from .npz import Npz, start_npy
from .remote import is_remote
from .tables import Hdf5, Parquet


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
        ValueError: an unknown ending; the message lists the known ones. A URL.
    """
    text = os.fspath(output)
    if is_remote(text):
        raise ValueError(
            f"a URL as output needs --ray; write a local file or folder, got {printable(text)!r}"
        )
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
        if not (path / "index.csv").exists():
            if any(path.iterdir()):
                raise ValueError(
                    f"{printable(path)} holds other files; choose another output folder"
                )
            # A run that is killed among the .npy files must know the folder for its own.
            self._conclude(path, content.settings, content.width, ())
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
                start_npy(file, (content.width,) if flat else (rows, content.width), content.dtype)
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
        self._conclude(path, content.settings, content.width, _index(content, times))

    def clear(self, path: Path, settings: dict[str, Any], width: int) -> None:
        """Delete the embeddings that the index names, so that the folder holds none.

        Files of others stay where they are.
        """
        for name in {clip.name for clip in self.read(path).clips}:
            file = path / f"{name}.npy"
            file.unlink(missing_ok=True)
            for folder in file.relative_to(path).parents:
                if folder.name and not any((path / folder).iterdir()):
                    (path / folder).rmdir()
        self._conclude(path, settings, width, ())

    def _conclude(
        self, path: Path, settings: dict[str, Any], width: int, rows: Iterable[tuple[Any, ...]]
    ) -> None:
        with replacing(path / "settings.json") as temporary:
            temporary.write_text(json.dumps(settings | {"width": width}, indent=1))
        with (
            replacing(path / "index.csv") as temporary,
            _open_index(temporary, "w") as table,
        ):
            writer = csv.writer(table)
            writer.writerow(INDEX)
            writer.writerows(rows)


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


def check_names(items: Iterable[Clip | Task], earlier: Iterable[Clip | Task] = ()) -> None:
    """Each recording needs a place of its own in the folder, and its clips side by side.

    Args:
        items: what is to be written, in this order.
        earlier: what has a place already; it may be written in several goes.

    Raises:
        ValueError: it is not so.
    """
    owners = {item.name: printable(item.path) for item in earlier}
    seen: set[str] = set()
    last = ""
    for item in items:
        path = printable(item.path)
        if (other := owners.setdefault(item.name, path)) != path:
            raise ValueError(
                f"{other} and {path} would both become {printable(item.name)}.npy; embed their "
                "parent, or each into a folder of its own"
            )
        if item.name in seen and item.name != last:
            raise ValueError(f"{path} was embedded in several goes; pass --overwrite")
        seen.add(item.name)
        last = item.name
