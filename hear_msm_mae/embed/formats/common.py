"""Base class of the output formats, and functions that they share."""

from __future__ import annotations

import bisect
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files import printable
from ..sources import Recording
from ..table import Block, Done, Reader, Table, cut, joined

TEMPORARY = ".hear-msm-mae-"
FORMULA = ("=", "+", "-", "@")  # spreadsheets compute cells that begin like this
# Control characters, and those that change the direction or the lines of the text around them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Format:
    """An output format. Reading and writing hold one block of rows in memory.

    Attributes:
        readable: whether `read` can read what `write` has written.
    """

    readable = True

    def needs(self) -> None:
        """Raise ValueError that names the extra when a package is missing."""

    def read(self, path: Path) -> Table:
        """Read an output.

        Raises:
            ValueError: this package did not write it, or it is damaged.
        """
        raise NotImplementedError

    def write(self, path: Path, table: Table) -> None:
        """Write or replace an output. If that fails, the old output stays and OSError is raised.

        Only one process may write to an output at a time, because temporary files of killed
        processes are removed.
        """
        raise NotImplementedError

    def clear(self, path: Path) -> None:
        """Delete the embeddings of an earlier run."""
        path.unlink(missing_ok=True)

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
def remove_stale(output: Path) -> None:
    """Remove temporary files of an output that killed runs have left."""
    for file in output.parent.glob(f"{_temporary(output)}*"):
        with suppress(OSError):
            file.unlink()


@contextmanager
def replaced(path: Path, within: Path | None = None) -> Iterator[Path]:
    """A temporary path that replaces `path` when the block succeeds.

    If the block fails, the temporary file is removed and the old file stays. The next run removes
    temporary files of a killed run, so only one process may write at a time.

    Args:
        path: the file to replace.
        within: folder of the temporary file, for outputs of many files. The caller then removes
            temporary files of killed runs.
    """
    output = path if within is None else within / "file"
    if within is None:
        remove_stale(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f"{_temporary(output)}{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(output: Path) -> str:
    """Prefix of the temporary files of an output; a hash keeps it short for long names."""
    digest = hashlib.sha256(os.fsencode(output.name)).hexdigest()
    return f"{TEMPORARY}{digest[:12]}-"


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


ArrayReader = Callable[[int, int], NDArray[Any]]  # (first row, number of rows) -> those rows


def array_reader(
    path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ArrayReader:
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


def block_reader(ends: Sequence[int], read: Callable[[int], Block]) -> Reader:
    """A reader of rows of a file that is stored in blocks; it keeps the last block.

    Args:
        ends: for each block the index of its last row, plus one.
        read: function that reads a block by its number.
    """
    last: tuple[int, Block] | None = None

    def rows_of(first: int, count: int) -> Block:
        nonlocal last
        found = []
        while count > 0:
            number = bisect.bisect_right(ends, first)
            if last is None or last[0] != number:
                with understood():
                    last = number, read(number)
            start = first - (ends[number - 1] if number else 0)
            found.append(cut(last[1], start, count))
            first, count = first + len(found[-1].rows), count - len(found[-1].rows)
        return joined(found)

    return rows_of


# ---------------------------------------------------------------------------------------------
# Columns and text
# ---------------------------------------------------------------------------------------------
def clip_columns(table: Table) -> dict[str, list[Any]]:
    """Columns with a value for each clip: path, start, end, channel (if any), columns of lists."""
    owners = [clip.recording for clip in table.clips]
    paths = table.paths()
    columns: dict[str, list[Any]] = {
        "path": [paths[owner] for owner in owners],
        "start": [clip.start for clip in table.clips],
        "end": [clip.end for clip in table.clips],
    }
    if any(clip.channel is not None for clip in table.clips):
        columns["channel"] = [clip.channel for clip in table.clips]
    for name, values in table.columns().items():
        columns[name] = [values[owner] for owner in owners]
    return columns


def arrays(table: Table) -> dict[str, NDArray[Any]]:
    """Arrays with a value for each clip, and `recordings`, which `table.from_json` reads."""
    columns = clip_columns(table)
    paths, start, end = (columns.pop(name) for name in ("path", "start", "end"))
    found = {
        "paths": np.array(paths, str),
        "start": np.array(start, float),
        "seconds": np.array(end, float) - np.array(start, float),
    }
    for name, values in columns.items():
        if any(isinstance(value, str) for value in values):
            array = np.array(["" if value is None else value for value in values])
        else:
            array = np.array([math.nan if value is None else value for value in values])
        known = name if name == "channel" else "column_" + re.sub(r"[/\\]", "_", name)
        found[known] = array
    found["recordings"] = np.frombuffer(table.to_json().encode(), np.uint8)
    return found


def csv_text(text: str) -> str:
    r"""Make text safe for CSV files, spreadsheets and terminals.

    Characters that control a terminal or the direction of text are escaped. Text that a
    spreadsheet would compute gets a quote in front.

    >>> csv_text("=1+1"), csv_text("a\x1b[2J")
    ("'=1+1", 'a\\x1b[2J')
    """

    def escaped(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    text = _CONTROL.sub(escaped, printable(text))
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_cell(value: Any) -> Any:
    """A value for a CSV file: None becomes an empty cell, text is made safe by `csv_text`."""
    return csv_text(value) if isinstance(value, str) else "" if value is None else value
