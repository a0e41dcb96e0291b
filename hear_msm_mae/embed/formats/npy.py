"""Folders of NPY files."""

from __future__ import annotations

import csv
import itertools
import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ...files import printable
from ..sources import Recording
from ..table import Block, Done, Reader, Runs, Table, from_json
from .common import (
    FORMULA,
    TEMPORARY,
    ArrayReader,
    Format,
    array_reader,
    clip_columns,
    csv_cell,
    csv_text,
    remove_stale,
    replaced,
    understood,
)
from .npz import start_npy

_LEDGER = "settings.json"
_INDEX = ("npy", "first_row", "rows", "first_timestamp_ms", "hop_ms")


class NpyFolder(Format):
    """A folder with one `.npy` file per recording, in the tree of the input: a.wav -> a.wav.npy.

    A file holds (d,) for one scene embedding, else (r, d) with all clips of the recording.
    `index.csv` lists the rows and times of each clip for people; the package never reads it.
    `settings.json` holds the settings and the list of complete recordings.
    """

    def read(self, path: Path) -> Table:
        """See `Format`. A recording whose file is missing or has another size is left out."""
        table, files, sizes, times = _ledger(path)
        runs: list[tuple[Reader, int, int]] = [(Runs([]), 0, clip.rows) for clip in table.clips]
        lost: set[str] = set()
        for name, clips in _clips(table).items():
            if _size(files[name]) is None or _size(files[name]) != sizes.get(name):
                lost.add(name)
                continue
            rows = [table.clips[i].rows for i in clips]
            offset = sizes[name] - sum(rows) * table.width * table.dtype.itemsize
            read = array_reader(files[name], offset, (sum(rows), table.width), table.dtype)
            for i, first in zip(clips, itertools.accumulate(rows, initial=0), strict=False):
                runs[i] = _clip_reader(read, first, times[i]), 0, table.clips[i].rows
        table.rows_of = Runs(runs)
        return table.select([i for i, x in enumerate(table.recordings) if x.name not in lost])

    def write(self, path: Path, table: Table) -> None:
        """See `Format`.

        Files with the same content are not written again. Files of recordings that are not in the
        table stay.
        """
        for reason in self.check_names(path, table.recordings).values():
            raise ValueError(reason)
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _LEDGER).exists():
            if not all(x.name.startswith(TEMPORARY) for x in path.iterdir()):
                raise ValueError(
                    f"{printable(path)} holds other files; choose another output folder"
                )
            # The ledger marks the folder, so that a run that is killed now can continue in it.
            _conclude(path, table.select([]), {}, [])
        remove_stale(path / "file")
        old, _, old_sizes, old_times = _ledger(path)
        how = [(json.dumps(x.settings), x.width, x.dtype, x.timestamps) for x in (old, table)]
        before = _clips(old)
        if how[0] != how[1]:
            # Old and new rows must not be mixed if the run is killed now.
            before = {}
            _conclude(path, table.select([]), {}, [])
        files = _files(path, _clips(table))
        sizes: dict[str, int] = {}
        times: list[list[float]] = [[] for _ in table.clips]
        for name, clips in _clips(table).items():
            was = before.get(name, [])
            size = _size(files[name])
            if size == old_sizes.get(name, -1) and _identity(old, was) == _identity(table, clips):
                sizes[name] = size
                for i, j in zip(clips, was, strict=True):
                    times[i] = old_times[j]
            else:
                sizes[name] = _write_file(files[name], path, table, clips, times)
        _conclude(path, table, sizes, times)

    def clear(self, path: Path) -> None:
        """See `Format`. Files that this package did not write stay."""
        table, files, *_ = _ledger(path)
        for file in files.values():
            file.unlink(missing_ok=True)
            for folder in file.relative_to(path).parents:
                if folder.name and (path / folder).is_dir() and not any((path / folder).iterdir()):
                    (path / folder).rmdir()
        _conclude(path, table.select([]), {}, [])

    def check_names(
        self, path: Path, items: Sequence[Recording | Done], earlier: Iterable[Done] = ()
    ) -> dict[int, str]:
        """See `Format`."""
        problems: dict[int, str] = {}
        owners = {done.name: done.key[0] for done in earlier}
        longest = _longest_name(path)
        for i, item in enumerate(items):
            where, name = item.key[0], item.name
            if (other := owners.setdefault(name, where)) != where:
                raise ValueError(
                    f"{printable(other)} and {printable(where)} would both become "
                    f"{printable(name)}.npy; embed the folder that holds both, or use two outputs"
                )
            parts = PurePosixPath(f"{name}.npy").parts
            if _leaves(name):
                problems[i] = f"{printable(name)}.npy would lie outside of {printable(path)}"
            elif max(len(os.fsencode(part)) for part in parts) > longest:
                problems[i] = (
                    f"the name {printable(name)}.npy is longer than the {longest} bytes that the "
                    "file system allows; rename it or choose a single file as output"
                )
        return problems


# ---------------------------------------------------------------------------------------------
# Files of the folder
# ---------------------------------------------------------------------------------------------
def _files(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """The .npy file of each name; ValueError if one would lie outside of the folder."""
    inside = {root: True}  # for each folder, with links resolved
    files = {}
    for name in names:
        file = root / f"{name}.npy"
        if not _leaves(name) and file.parent not in inside:
            inside[file.parent] = file.parent.resolve().is_relative_to(root.resolve())
        if _leaves(name) or not inside[file.parent]:
            raise ValueError(f"{printable(name)}.npy would lie outside of {printable(root)}")
        files[name] = file
    return files


def _leaves(name: str) -> bool:
    """Whether a name is invalid or leads out of the folder."""
    pure = PurePosixPath(name)
    return not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in name


def _size(file: Path) -> int | None:
    """Size of a regular file in bytes, else None."""
    try:
        status = file.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _longest_name(path: Path) -> int:
    """Longest file name in bytes that the folder's file system allows."""
    there = next((x for x in (path, *path.absolute().parents) if x.is_dir()), Path())
    try:
        return os.pathconf(there, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return 255


def _write_file(
    file: Path, root: Path, table: Table, clips: list[int], times: list[list[float]]
) -> int:
    """Write the rows of the clips, and set their first timestamps and hops.

    Returns:
        The size of the file in bytes.
    """
    part = table.select(list(dict.fromkeys(table.clips[i].recording for i in clips)))
    whole = part.recordings[0].key[1:3] == [0.0, None] and table.settings.get("segment") is None
    flat = len(clips) == 1 and whole and not table.timestamps
    shape = (table.width,) if flat else (part.total_rows, table.width)
    first: list[list[float]] = [[] for _ in clips]
    with replaced(file, root) as temporary, temporary.open("wb") as output:
        start_npy(output, shape, table.dtype)
        for index, block in part.indexed():
            output.write(np.ascontiguousarray(block.rows, table.dtype).data)
            if block.times_ms is not None:
                for i in np.unique(index):
                    first[i] = (first[i] + block.times_ms[index == i][:2].tolist())[:2]
    for i, at in zip(clips, first, strict=True):
        times[i] = [at[0], at[-1] - at[0]] if at else []
    return file.stat().st_size


def _clip_reader(read: ArrayReader, first: int, at: Sequence[float]) -> Reader:
    """A reader of one clip; `at` is its first timestamp and hop in ms, or empty."""

    def rows_of(start: int, count: int) -> Block:
        times = at[0] + at[1] * np.arange(start, start + count, dtype=np.float64) if at else None
        return Block(read(first + start, count), times)

    return rows_of


# ---------------------------------------------------------------------------------------------
# Ledger and index
# ---------------------------------------------------------------------------------------------
def _ledger(path: Path) -> tuple[Table, dict[str, Path], dict[str, int], list[list[float]]]:
    """The table without rows; files and sizes by name; first timestamp and hop of each clip."""
    with understood("folder"):
        table, parts = from_json((path / _LEDGER).read_bytes())
        sizes = {str(name): int(size) for name, size in parts["sizes"].items()}
        times = [[float(x) for x in at] for at in parts["times"]]
        if [len(at) for at in times] != [2 * table.timestamps] * len(table.clips):
            raise ValueError("times are missing")
        files = _files(path, _clips(table))
    return table, files, sizes, times


def _clips(table: Table) -> dict[str, list[int]]:
    """Indices of the clips of each file, in order."""
    found: dict[str, list[int]] = {}
    for i, clip in enumerate(table.clips):
        found.setdefault(table.recordings[clip.recording].name, []).append(i)
    return found


def _identity(table: Table, clips: list[int]) -> str:
    """Identity of a file's content: with equal settings, equal identities mean equal rows."""
    found = []
    for i in clips:
        clip = table.clips[i]
        done = table.recordings[clip.recording]
        found.append((done.key, done.stamp, clip.start, clip.end, clip.rows, clip.channel))
    return json.dumps(found)


def _conclude(
    path: Path, table: Table, sizes: dict[str, int], times: Sequence[Sequence[float]]
) -> None:
    """Write the index, then the ledger."""
    columns = clip_columns(table)
    next_row: dict[str, int] = {}
    with (
        replaced(path / "index.csv", path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        names = list(map(csv_text, columns))
        writer.writerow([*names[:3], *_INDEX, *names[3:]])
        for i, clip in enumerate(table.clips):
            name = table.recordings[clip.recording].name
            row = next_row.get(name, 0)
            next_row[name] = row + clip.rows
            cells = [csv_cell(values[i]) for values in columns.values()]
            place = f"./{name}.npy" if name.startswith(FORMULA) else f"{name}.npy"
            at = times[i] or ("", "")
            writer.writerow([*cells[:3], csv_text(place), row, clip.rows, *at, *cells[3:]])
    with replaced(path / _LEDGER, path) as temporary:
        temporary.write_text(table.to_json(sizes=sizes, times=times), encoding="utf-8")
