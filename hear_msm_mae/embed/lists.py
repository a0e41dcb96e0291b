"""Lists of recordings: CSV, TSV and Parquet files with a row per recording or stretch."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..extras import need
from ..files import printable
from .remote import is_remote

LIST_SUFFIXES = (".csv", ".tsv", ".parquet")
KNOWN = ("path", "start", "offset", "end", "duration", "channel")
CHANNELS = ("mix", "left", "right", "each")
# Other common names of these columns. Some event lists have `onset` and `offset` for start and end.
_OTHER_NAMES = {
    **dict.fromkeys(("begin", "onset", "from", "tmin", "xmin"), "start"),
    **dict.fromkeys(("stop", "finish", "to", "until", "tmax", "xmax"), "end"),
    **dict.fromkeys(("length", "dur", "len"), "duration"),
}
_PATH_NAMES = re.compile(r"file|audio|wav|path|ur[il]|name|recording")
# Columns that outputs add. They are skipped, so that an output can be used as a list.
_OUTPUT_COLUMNS = re.compile(r"timestamp_ms|embedding|e\d+|__index_level_\d+__|")
_BULKY = re.compile("float|double|binary")  # embeddings or encoded audio in lists and structures
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|[nrt])")  # those of `files.for_terminal`
_TOLERANCE = 1e-6  # s, between an end and a start with a duration


class Row(NamedTuple):
    """A row of a list."""

    path: str  # file or URL
    start: float  # s
    end: float | None  # s
    channel: str | None
    columns: dict[str, Any]  # all others


def read_list(source: str) -> list[Row]:
    """Read a list of recordings.

    The columns are `path`; `start` or `offset`, and `end` or `duration`, in seconds; `channel`.
    Case and surrounding spaces of the names do not matter. Other columns are kept. They become
    numbers if every cell looks the same when the number is written again ("007" stays text). Lists
    and structures of Parquet become JSON, but those with floating point or bytes are left out.
    A relative path is looked up in the current folder first, then in the folder of the list.

    Args:
        source: a `.csv`, `.tsv` or `.parquet` file.

    Returns:
        One `Row` for each row of the list, in its order.

    Raises:
        ValueError: the path is missing, a column name is nearly one of the above, times are
            impossible or contradict each other, or a relative path exists in both folders. The
            message names the column or the row.
    """
    is_parquet = source.lower().endswith(".parquet")
    names, rows = _read_parquet(source) if is_parquet else _read_csv(source)
    roles, others = _roles(printable(source), names)
    columns = {name: [row[i] for row in rows] for name, i in others.items()}
    if not is_parquet:
        columns = {name: _typed(values) for name, values in columns.items()}
    found = []
    for number, row in enumerate(rows):
        cells = {role: row[i] for role, i in roles.items()}
        more = {name: values[number] for name, values in columns.items()}
        try:
            start, end = _stretch(cells)
            if (channel := cells.get("channel")) is not None:
                # pandas writes 1 as 1.0 in a column with missing values.
                channel = str(channel).strip().removesuffix(".0")
                parse_channel(channel)
            found.append(Row(_resolved(cells["path"], source), start, end, channel, more))
        except ValueError as error:
            raise ValueError(f"{printable(source)}, row {number + 1}: {error}") from None
    return found


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------
def _read_csv(source: str) -> tuple[list[str], list[list[Any]]]:
    """Names of the columns, and cells. The delimiter is guessed from the header."""
    raw = Path(source).read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # "Unicode text" of spreadsheets
        text = raw.decode("utf-16", "replace")
    else:  # surrogateescape keeps the bytes of file names that are not UTF-8
        text = raw.decode("utf-8-sig", "surrogateescape")

    def lines(delimiter: str, strict: bool = False) -> Iterator[list[str]]:
        reader = csv.reader(io.StringIO(text, ""), delimiter=delimiter, strict=strict)
        return filter(None, reader)

    def fit(delimiter: str) -> tuple[bool, int]:
        names = next(lines(delimiter), [])
        return "path" in map(_folded, names), len(names)

    try:
        delimiter = max("\t,;" if source.lower().endswith(".tsv") else ",;\t", key=fit)
        # A quote that is not closed would hide rows in a cell, so it is an error.
        names, *rows = [*lines(delimiter, strict=True)] or [[]]
    except csv.Error as error:
        raise ValueError(f"{printable(source)} is not a table of text: {error}") from error
    for number, cells in enumerate(rows, 1):
        if any(cell.strip() for cell in cells[len(names) :]):
            raise ValueError(
                f"{printable(source)}, row {number}: {len(cells)} cells for {len(names)} columns; "
                "put cells that hold the delimiter into quotes"
            )
    missing = [None] * len(names)
    return names, [[x if x.strip() else None for x in cells] + missing for cells in rows]


def _read_parquet(source: str) -> tuple[list[str], list[list[Any]]]:
    need("pyarrow.parquet", "embed", "Parquet files")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            types = {x.name: str(x.type) for x in file.schema_arrow if pa.types.is_nested(x.type)}
            bulky = {name for name, type_ in types.items() if _BULKY.search(type_)}
            table = file.read([x for x in file.schema_arrow.names if x not in bulky])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{printable(source)} is not a Parquet file: {error}") from error
    columns = [map(plain, column.to_pylist()) for column in table.columns]
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    """A cell as text, a number or None, which every output can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):  # as some programs store text
        return os.fsdecode(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, (list, dict)):
        return json.dumps(value, default=str)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _typed(values: Sequence[str | None]) -> list[Any]:
    """Trimmed cells of a column, as numbers if all of them look the same when written again."""
    cells = [value and value.strip() for value in values]
    for kind in (int, float):
        try:
            numbers = [None if cell is None else kind(cell) for cell in cells]
        except ValueError:
            continue
        if all(x is None or cell == str(x) for cell, x in zip(cells, numbers, strict=True)):
            return numbers
    return cells


# ---------------------------------------------------------------------------------------------
# Columns and cells
# ---------------------------------------------------------------------------------------------
def _folded(name: str) -> str:
    return name.strip().casefold()


def _roles(source: str, names: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Index of each known column, and of each other column."""
    roles: dict[str, int] = {}
    others: dict[str, int] = {}
    for i, name in enumerate(map(str.strip, names)):
        folded = _folded(name)
        if folded in roles or name in others:
            raise ValueError(f"{source} has two columns {name!r}")
        if folded in KNOWN:
            roles[folded] = i
        elif not _OUTPUT_COLUMNS.fullmatch(folded):
            others[name] = i
    if "path" not in roles:
        near = [name for name in others if _PATH_NAMES.search(_folded(name))]
        hint = f"; rename {near[0]!r} if it holds the paths" if near else ""
        raise ValueError(
            f"{source} has no column 'path'; a list of recordings needs it (and may have 'start' "
            f"and 'end' in seconds), but its columns are {list(names)}{hint}"
        )
    for name in others:
        near_to = _near(name)
        same = {"start", "offset"} if near_to == "offset" else {near_to}
        if near_to in ("end", "duration"):
            same = {"end", "duration"}
        if near_to and not same & roles.keys():
            raise ValueError(
                f"{source}: column {name!r} looks like {near_to!r}; rename it to {near_to!r} if it "
                "is that (times are in seconds), otherwise to another name"
            )
    return roles, others


def _near(name: str) -> str:
    """The known column that a name resembles, or an empty string."""
    stem = re.sub(r"[^a-z]", "", _folded(name))
    stem = re.sub(r"(time|seconds?|secs?|ms|s)+$", "", stem)
    if stem in _OTHER_NAMES:
        return _OTHER_NAMES[stem]
    for known in KNOWN[1:]:
        ratio = difflib.SequenceMatcher(None, stem, known).ratio()
        if sorted(stem) == sorted(known) or (ratio > 0.8 and abs(len(stem) - len(known)) < 2):
            return known
    return ""


def parse_channel(value: str | int | None) -> str | int | None:
    """The value of `Recording.channel` for a channel's name or number.

    Raises:
        ValueError: it is neither.

    >>> parse_channel("mix"), parse_channel(" Left "), parse_channel("2")
    (None, 'left', 2)
    """
    text = str(value).strip().casefold()
    if value is None or text in ("", "mix"):
        return None
    if text in CHANNELS:
        return text
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"channel must be one of {list(CHANNELS)} or a number, got {value!r}")
    return int(text)


def _stretch(cells: dict[str, Any]) -> tuple[float, float | None]:
    """Start and end in seconds; the end is None where the file's end is meant."""
    start, offset, end, duration = (
        _seconds(cells.get(name), name) for name in ("start", "offset", "end", "duration")
    )
    if start is not None and offset is not None and abs(start - offset) > _TOLERANCE:
        raise ValueError(f"start {start} and offset {offset} contradict each other")
    first = start or offset or 0.0
    last = first + duration if end is None and duration is not None else end
    if end is not None and duration is not None and abs(end - first - duration) > _TOLERANCE:
        raise ValueError(f"end {end} and duration {duration} from {first} on contradict each other")
    if first < 0 or (last is not None and last <= first):
        raise ValueError(f"expected 0 <= start < end, got {first} and {last}")
    return first, last


def _seconds(value: Any, name: str) -> float | None:
    try:
        seconds = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be seconds such as 90.5, got {value!r}") from None
    if math.isinf(seconds):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return None if math.isnan(seconds) else seconds  # pandas writes a missing value as NaN


def _resolved(path: Any, source: str) -> str:
    """The file that a cell names. Outputs escape names, and people add spaces."""
    if not isinstance(path, str) or not path.strip():
        raise ValueError("the path is missing")
    plain = path.strip()
    if is_remote(plain):
        return plain
    unquoted = re.sub(r"^'(?=[=+@-])", "", plain)  # CSV outputs put this quote before formulas
    unescaped = _ESCAPE.sub(lambda x: x[0].encode().decode("unicode_escape"), unquoted)
    # Some systems write an accent as a character that follows the letter.
    composed, apart = (unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))
    for text in (path, plain, unescaped, composed, apart):
        beside = os.path.join(os.path.dirname(source), text)
        found = [candidate for candidate in (text, beside) if os.path.exists(candidate)]
        if len(found) == 2 and not os.path.samefile(*found):
            raise ValueError(
                f"{printable(plain)} is in the current folder and in that of the list; write the "
                "absolute path of the one to embed"
            )
        if found:
            return found[0]
    return plain
