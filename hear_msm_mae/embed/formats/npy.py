"""Folders of NPY files."""

from __future__ import annotations

import csv
import itertools
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...files import printable
from ..sources import Recording
from ..table import Done, Reader, Table, chained, from_json
from .common import (
    FORMULA,
    TEMPORARY,
    Format,
    array_reader,
    clip_columns,
    csv_cell,
    npy_header,
    replaced,
    understood,
)

_INDEX, _LEDGER = "index.csv", "settings.json"


class NpyFolder(Format):
    """A folder with one `.npy` file per recording, in the tree of the input: a.wav -> a.wav.npy.

    A file holds (d,) for one scene embedding, else (r, d) with all clips of the recording.
    `index.csv` lists the rows and times of each clip for people; the package never reads it.
    `settings.json` holds the settings and the list of complete recordings.
    """

    def load(self, path: Path) -> Table:
        """See `Format`. A recording whose file is missing or has another size is left out."""
        table = from_json((path / _LEDGER).read_bytes())
        clips = _clips(table)
        lost: set[str] = set()
        runs: list[tuple[Reader, int, int]] = [(table.read, 0, 0) for _ in table.clips]
        for name, file in _files(path, clips).items():
            header, size = _layout(table, clips[name])
            if _size(file) != size:
                lost.add(name)
                continue
            rows = [table.clips[i].rows for i in clips[name]]
            read = array_reader(file, len(header), (sum(rows), table.width), table.dtype)
            for i, first in zip(clips[name], itertools.accumulate(rows, initial=0), strict=False):
                runs[i] = read, first, table.clips[i].rows
        kept = table.select([i for i, x in enumerate(table.recordings) if x.name not in lost])
        kept.read = chained(runs)  # those of lost files have no rows
        return kept

    def write(self, path: Path, table: Table) -> None:
        """See `Format`.

        Files with the same content are not written again. Files of recordings that are not in the
        table are removed if they are as this package wrote them.
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
            _conclude(path, table.select([]))
        with understood("folder"):
            old = from_json((path / _LEDGER).read_bytes())
            before, after = _clips(old), _clips(table)
            files = _files(path, [*before, *after])
        unchanged = {
            name for name, clips in before.items() if _size(files[name]) == _layout(old, clips)[1]
        }
        for name in unchanged - after.keys():
            files[name].unlink()
            with suppress(OSError):  # a folder that holds other files
                for folder in PurePosixPath(name).parents[:-1]:
                    (path / folder).rmdir()
        if old.select([]).to_json() != table.select([]).to_json():
            # The settings differ. Old and new rows must not be mixed if the run is killed now.
            _conclude(path, table.select([]))
        for name, clips in after.items():
            part = _part(table, clips)
            if name not in unchanged or _part(old, before[name]).to_json() != part.to_json():
                with replaced(files[name], path) as temporary, temporary.open("wb") as output:
                    output.write(_layout(table, clips)[0])
                    for _, block in part.indexed():
                        output.write(np.ascontiguousarray(block.rows, table.dtype).data)
        _conclude(path, table)

    def check_names(
        self, path: Path, items: Sequence[Recording | Done], earlier: Iterable[Done] = ()
    ) -> dict[int, str]:
        """See `Format`."""
        problems: dict[int, str] = {}
        owners = {done.name: done.key[0] for done in earlier}
        files = {_INDEX, _LEDGER, *(f"{name}.npy" for name in owners)}
        folders = {str(folder) for name in owners for folder in PurePosixPath(name).parents}
        longest = _longest_name(path)
        for i, item in enumerate(items):
            where, name = item.key[0], item.name
            if (other := owners.setdefault(name, where)) != where:
                raise ValueError(
                    f"{printable(other)} and {printable(where)} would both become "
                    f"{printable(name)}.npy; embed the folder that holds both, or use two outputs"
                )
            file = PurePosixPath(f"{name}.npy")
            above = set(map(str, file.parents))
            if _leaves(name):
                problems[i] = f"{printable(name)}.npy would lie outside of {printable(path)}"
            elif max(len(os.fsencode(part)) for part in file.parts) > longest:
                problems[i] = (
                    f"the name {printable(name)}.npy is longer than the {longest} bytes that the "
                    "file system allows; rename it or choose a single file as output"
                )
            elif str(file) in folders or above & files:
                problems[i] = (
                    f"{printable(name)}.npy needs a file and a folder of the same name; rename it "
                    "or choose a single file as output"
                )
            else:
                files.add(str(file))
                folders |= above
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
    there = next(x for x in (path, *path.absolute().parents) if x.is_dir())
    return os.pathconf(there, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255


def _clips(table: Table) -> dict[str, list[int]]:
    """Indices of the clips of each file, in order."""
    found: dict[str, list[int]] = {}
    for i, clip in enumerate(table.clips):
        found.setdefault(table.recordings[clip.recording].name, []).append(i)
    return found


def _part(table: Table, clips: list[int]) -> Table:
    """The recordings of some clips: the content of a file."""
    return table.select(list(dict.fromkeys(table.owners[i] for i in clips)))


def _layout(table: Table, clips: list[int]) -> tuple[bytes, int]:
    """Header of the file with these clips, and size of the file in bytes."""
    rows = sum(table.clips[i].rows for i in clips)
    whole = table.recordings[table.owners[clips[0]]].key[1:3] == [0.0, None]
    flat = len(clips) == 1 and whole and not table.timestamps and not table.settings.get("segment")
    header = npy_header((table.width,) if flat else (rows, table.width), table.dtype)
    return header, len(header) + rows * table.width * table.dtype.itemsize


def _conclude(path: Path, table: Table) -> None:
    """Write the index, then the ledger."""
    names = [table.recordings[owner].name for owner in table.owners]
    next_row: Counter[str] = Counter()
    first_rows = []
    for name, clip in zip(names, table.clips, strict=True):
        first_rows.append(next_row[name])
        next_row[name] += clip.rows
    # A list can be an index of such a folder, whose places are of its own files.
    columns: dict[str, list[Any]] = clip_columns(table) | {
        "npy": [f"./{x}.npy" if x.startswith(FORMULA) else f"{x}.npy" for x in names],
        "first_row": first_rows,
        "rows": [clip.rows for clip in table.clips],
        "first_timestamp_ms": [clip.first_ms if table.timestamps else "" for clip in table.clips],
        "hop_ms": [clip.hop_ms if table.timestamps else "" for clip in table.clips],
    }
    with (
        replaced(path / _INDEX, path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        writer.writerows(zip(*(map(csv_cell, x) for x in columns.values()), strict=True))
    with replaced(path / _LEDGER, path) as temporary:
        temporary.write_text(table.to_json(), encoding="utf-8")
