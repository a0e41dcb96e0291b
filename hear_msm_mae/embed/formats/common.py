"""Base class of the output formats, and functions that they share."""

from __future__ import annotations

import bisect
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import need
from ...files import for_terminal, printable
from ..sources import Recording
from ..table import Done, Reader, Table

TEMPORARY = ".hear-msm-mae-"  # names of temporary files begin like this
FORMULA = ("=", "+", "-", "@")  # spreadsheets compute cells that begin like this


class Format:
    """An output format. Reading and writing hold one block of rows in memory.

    Attributes:
        packages: the packages that it needs, from the extra "embed".
        readable: whether `read` can read what `write` has written.
    """

    packages: tuple[str, ...] = ()
    readable = True

    def needs(self) -> None:
        """Raise ValueError that names the extra when a package is missing."""
        for package in self.packages:
            need(package, "embed", f"{type(self).__name__} files")

    def read(self, path: Path) -> Table:
        """Read an output.

        Raises:
            ValueError: this package did not write it, or it is damaged.
        """
        with understood("folder" if path.is_dir() else "file"):
            return self.load(path)

    def write(self, path: Path, table: Table) -> None:
        """Write or replace an output. If that fails, the old output stays and OSError is raised.

        Only one process may write to an output at a time.
        """
        with replaced(path) as temporary:
            self.save(temporary, table)

    def load(self, path: Path) -> Table:
        """Read a file; any error means that this package did not write it."""
        raise NotImplementedError

    def save(self, path: Path, table: Table) -> None:
        """Write a new file."""
        raise NotImplementedError

    def check_names(
        self, path: Path, items: Sequence[Recording | Done], earlier: Iterable[Done] = ()
    ) -> dict[int, str]:
        """Find recordings whose name the output cannot hold.

        Returns:
            The reason for each, by its index in `items`.

        Raises:
            ValueError: two recordings would have the same name in the output.
        """
        return {}


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------
@contextmanager
def replaced(path: Path, within: Path | None = None) -> Iterator[Path]:
    """A temporary path that replaces `path` when the block succeeds.

    If the block fails, the temporary file is removed and the old file stays. The name of the
    temporary file is always the same, so that the file of a killed run is overwritten and does not
    stay. So only one process may write at a time. Where `path` is a link, the file that it names is
    replaced.

    Args:
        path: the file to replace.
        within: folder of the temporary file, for outputs of many files.
    """
    if within is None:
        path = Path(os.path.realpath(path))
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]  # names can be long
    temporary = (within or path.parent) / f"{TEMPORARY}{'file' if within else digest}.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def understood(kind: str = "file") -> Iterator[None]:
    """Turn every error into ValueError: libraries raise any error for a damaged file."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"it is not a {kind} of this command, or damaged ({error})") from error


@contextmanager
def told(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors of a library that writes, e.g. because of a full disk, into OSError."""
    try:
        yield
    except errors as error:
        raise OSError(str(error).splitlines()[0]) from error


def require_shape(found: Any, expected: Any) -> None:
    """Raise ValueError if rows are missing or were added by another program."""
    if found != expected:
        raise ValueError(f"its rows are not those that were written: {found}, not {expected}")


def array_reader(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Reader:
    """A reader of rows of an array that lies in a file in C order; they are mapped into memory.

    Raises:
        ValueError: the file is too short.
    """
    size = math.prod(shape[1:])
    if offset < 0 or offset + shape[0] * size * dtype.itemsize > path.stat().st_size:
        raise ValueError(f"{printable(path)} is too short; the output is damaged")

    def read(first: int, count: int) -> NDArray[Any]:
        if not count or not size:  # nothing can be mapped
            return np.empty((count, *shape[1:]), dtype)
        begin = offset + first * size * dtype.itemsize
        return np.memmap(path, dtype, "c", begin, (count, *shape[1:]))

    return read


def block_reader(ends: Sequence[int], load: Callable[[int], NDArray[Any]]) -> Reader:
    """A reader of rows of a file that is stored in blocks; it keeps the last block.

    Args:
        ends: for each block the index of its last row, plus one.
        load: function that reads a block by its number.
    """
    last: tuple[int, NDArray[Any]] | None = None

    def read(first: int, count: int) -> NDArray[Any]:
        nonlocal last
        found = []
        while count > 0:
            number = bisect.bisect_right(ends, first)
            if last is None or last[0] != number:
                with understood():
                    last = number, load(number)
            start = first - (ends[number - 1] if number else 0)
            found.append(last[1][start : start + count])
            first, count = first + len(found[-1]), count - len(found[-1])
        return found[0] if len(found) == 1 else np.concatenate(found)

    return read


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of an .npy file; the data follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


# ---------------------------------------------------------------------------------------------
# Columns and text
# ---------------------------------------------------------------------------------------------
def clip_columns(table: Table) -> dict[str, list[Any]]:
    """Columns with a value for each clip: path, start, end, channel (if any), columns of lists."""
    owners = [clip.recording for clip in table.clips]
    recordings = {"path": table.paths(), **table.columns()}
    columns = {name: [values[owner] for owner in owners] for name, values in recordings.items()}
    found: dict[str, list[Any]] = {
        "path": columns.pop("path"),
        "start": [clip.start for clip in table.clips],
        "end": [clip.end for clip in table.clips],
    }
    if any(clip.channel is not None for clip in table.clips):
        found["channel"] = [clip.channel for clip in table.clips]
    return found | columns


def csv_text(text: str) -> str:
    r"""Make text safe for CSV files, spreadsheets and terminals.

    Characters that control a terminal or the direction of text are escaped. Text that a
    spreadsheet would compute gets a quote in front.

    >>> csv_text("=1+1"), csv_text("a\x1b[2J")
    ("'=1+1", 'a\\x1b[2J')
    """
    text = for_terminal(text)
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_cell(value: Any) -> Any:
    """A value for a CSV file: None becomes an empty cell, text is made safe by `csv_text`."""
    return csv_text(value) if isinstance(value, str) else "" if value is None else value
