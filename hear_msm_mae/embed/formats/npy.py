"""Folders of NPY files."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...files import printable
from ..sources import Recording
from ..table import Block, Done, Reader, Runs, Table, from_json
from .common import (
    FORMULA,
    TEMPORARY,
    Format,
    array_reader,
    clip_columns,
    csv_cell,
    csv_text,
    remove_stale,
    replaced,
)
from .npz import start_npy

_LEDGER = "settings.json"
_INDEX = ("npy", "first_row", "rows", "first_timestamp_ms", "hop_ms")


class NpyFolder(Format):
    """A folder with one `.npy` file per recording, in the tree of the input: a.wav -> a.wav.npy.

    (d,) for a scene embedding, else (r, d): all stretches of a recording lie in one file.
    `index.csv` says which rows are which clip and, for timestamps, where in the file they lie; it
    is for people and never read. `settings.json` holds the settings and what is done.
    """

    def read(self, path: Path) -> Table:
        """See `Format`. Recordings whose file is missing or of another size are left out."""
        table, sizes, times = _ledger(path)
        runs: dict[int, tuple[Reader, int, int]] = {}  # by clip
        for name, clips in _clips(table).items():
            file, rows = _file(path, name), sum(table.clips[i].rows for i in clips)
            if _size(file) is None or _size(file) != sizes.get(name):
                continue
            offset = sizes[name] - rows * table.width * table.dtype.itemsize
            read = array_reader(file, offset, (rows, table.width), table.dtype)
            first = 0
            for i in clips:
                at = times[i] if table.timestamps else None
                runs[i] = _clip_reader(read, first, at), 0, table.clips[i].rows
                first += table.clips[i].rows
        there = [all(i in runs for i in range(*span)) for span in table.spans]
        table.rows_of = Runs(
            [runs.get(i, (_nothing, 0, x.rows)) for i, x in enumerate(table.clips)]
        )
        return table.select([i for i, found in enumerate(there) if found])

    def write(self, path: Path, table: Table) -> None:
        """See `Format`. Files that hold the same already stay as they are, and those of
        recordings that the table lacks."""
        for reason in self.check_names(path, table.recordings).values():
            raise ValueError(reason)
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _LEDGER).exists():
            if not all(x.name.startswith(TEMPORARY) for x in path.iterdir()):
                raise ValueError(
                    f"{printable(path)} holds other files; choose another output folder"
                )
            # A run that is killed among the .npy files must know the folder for its own.
            _conclude(path, table.select([]), {}, [])
        remove_stale(path / "file")
        old, old_sizes, old_times = _ledger(path)
        same = (old.settings, old.width, old.dtype, old.timestamps) == (
            *(table.settings, table.width, table.dtype, table.timestamps),
        )
        kept = {name: (_identity(old, x), x) for name, x in _clips(old).items() if same}
        sizes: dict[str, int] = {}
        times: list[list[float]] = [[] for _ in table.clips]
        for name, clips in _clips(table).items():
            identity, before = kept.get(name, ("", []))
            size = _size(_file(path, name))
            unchanged = size == old_sizes.get(name) and identity == _identity(table, clips)
            if size is not None and unchanged:
                sizes[name] = size
                for i, j in zip(clips, before, strict=True):
                    times[i] = old_times[j]
                continue
            sizes[name] = _write_file(path, name, table, clips, times)
        _conclude(path, table, sizes, times)

    def clear(self, path: Path) -> None:
        """See `Format`. Files of others stay where they are."""
        table, _, _ = _ledger(path)
        files = [_file(path, name) for name in _clips(table)]
        for file in files:
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
                    f"{printable(name)}.npy; embed their parent, or each into a folder of its own"
                )
            parts = PurePosixPath(f"{name}.npy").parts
            if max(len(os.fsencode(part)) for part in parts) > longest:
                problems[i] = (
                    f"the name {printable(name)}.npy is longer than the {longest} bytes that the "
                    "file system takes; rename it or choose a single file as output"
                )
        return problems


# ---------------------------------------------------------------------------------------------
# Files of the folder
# ---------------------------------------------------------------------------------------------
def _file(root: Path, name: str) -> Path:
    """The .npy file of a name; ValueError where it would lie outside of the folder."""
    inside, file = PurePosixPath(name), root / f"{name}.npy"
    odd = not inside.parts or inside.is_absolute() or ".." in inside.parts or "\0" in name
    if odd or not file.parent.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{printable(name)}.npy would lie outside of {printable(root)}")
    return file


def _size(file: Path) -> int | None:
    """Bytes of a regular file."""
    try:
        status = file.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _longest_name(path: Path) -> int:
    """Bytes that a name may have in the folder, which may not exist yet."""
    there = next((x for x in (path, *path.absolute().parents) if x.is_dir()), Path("."))
    try:
        return os.pathconf(there, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return 255


def _write_file(
    root: Path, name: str, table: Table, clips: list[int], times: list[list[float]]
) -> int:
    """Write the rows of the clips and set their first timestamps and hops; size of the file."""
    file = _file(root, name)
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


def _clip_reader(read: Any, first: int, at: Sequence[float] | None) -> Reader:
    """A reader of one clip."""

    def rows_of(start: int, count: int) -> Block:
        times = None
        if at is not None:
            times = at[0] + at[1] * np.arange(start, start + count, dtype=np.float64)
        return Block(read(first + start, count), times)

    return rows_of


def _nothing(first: int, count: int) -> Block:
    raise ValueError("the file is gone")


# ---------------------------------------------------------------------------------------------
# What is done
# ---------------------------------------------------------------------------------------------
def _ledger(path: Path) -> tuple[Table, dict[str, int], list[list[float]]]:
    """Table without rows, size of each file, first timestamp and hop of each clip."""
    try:
        table, parts = from_json((path / _LEDGER).read_bytes())
        sizes = {str(name): int(size) for name, size in parts["sizes"].items()}
        times = [[float(x) for x in at] for at in parts["times"]]
        if len(times) != len(table.clips) or (table.timestamps and not all(map(len, times))):
            raise ValueError("times are missing")
        for name in sizes:
            _file(path, name)
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"it is not a folder of this command ({error})") from error
    return table, sizes, times


def _clips(table: Table) -> dict[str, list[int]]:
    """Clips of each file, in their order."""
    found: dict[str, list[int]] = {}
    for i, clip in enumerate(table.clips):
        found.setdefault(table.recordings[clip.recording].name, []).append(i)
    return found


def _identity(table: Table, clips: list[int]) -> str:
    """What a file holds: two with equal ones, of equal settings, have equal rows."""
    found = []
    for i in clips:
        clip = table.clips[i]
        done = table.recordings[clip.recording]
        found.append((done.key, done.stamp, clip.start, clip.end, clip.rows, clip.channel))
    return json.dumps(found)


def _conclude(
    path: Path, table: Table, sizes: dict[str, int], times: Sequence[Sequence[float]]
) -> None:
    """Write the index, and then what is done."""
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
