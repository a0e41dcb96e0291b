"""What to embed: files, folders, globs, URLs, and lists of them in CSV or Parquet files."""

from __future__ import annotations

import csv
import glob
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..audio import AUDIO_SUFFIXES, find_audio
from ..extras import need
from ..files import printable, unescaped
from .remote import find_remote, is_remote

LIST_SUFFIXES = (".csv", ".parquet")


class Task(NamedTuple):
    """A recording, or a stretch of one, that is to be embedded.

    Attributes:
        path: file or URL; bytes that are not UTF-8 as surrogates, as Python has them.
        start, end: of the stretch in seconds; end None: the end of the file.
        name: path below the given folder, for outputs that mirror it.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    name: str = ""


class Failure(NamedTuple):
    """Something that could not be read, and why."""

    path: str
    start: float
    end: float | None
    reason: str


def find_tasks(
    sources: Iterable[str | Path | Task], problems: list[Failure] | None = None
) -> list[Task]:
    """Find the recordings that are meant.

    Args:
        sources: any mix of

            - files, whatever their ending;
            - folders: searched as `hear_msm_mae.audio.find_audio` does;
            - globs, where no file has that name (`**` matches folders): folders as above, and
              files that have an audio ending or the one in the glob;
            - lists: `.csv` or `.parquet` files with a column `path` and, optionally, `start` and
              `end` in seconds. Relative paths count from the current folder or, if there is
              nothing, from the folder of the list. A file that does not exist is found out when
              it is read;
            - URLs of a file, a folder or a glob that fsspec can open, e.g. s3://bucket/folder;
            - `Task`s.
        problems: gets the folders below that could not be listed.

    Returns:
        Tasks in the order of the sources, sorted within each; what several sources name, once.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: no recordings at all, or a list that makes no sense; the message names the row.
    """
    sources = list(sources)
    tasks: dict[Any, Task] = {}  # by all but the name, which depends on the source
    for source in sources:
        if isinstance(source, Task):
            found: Iterable[Task] = [source]
        else:
            found = _tasks_of(os.fspath(source), problems)
        for task in found:
            tasks.setdefault(task[:3], task if task.name else task._replace(name=_base(task.path)))
    if not tasks:
        names = ", ".join(printable(str(getattr(x, "path", x))) for x in sources)
        raise ValueError(f"no audio files in {names or 'an empty list of sources'}")
    return list(tasks.values())


def _tasks_of(source: str, problems: list[Failure] | None) -> Iterator[Task]:
    if is_remote(source):
        root = re.split(r"[*?\[]", source)[0]
        for url in find_remote(source):
            below = url.removeprefix(root).lstrip("/")
            yield Task(url, name=below if url.startswith(root) and below else _base(url))
    elif source.lower().endswith(LIST_SUFFIXES) and os.path.isfile(source):
        yield from _read_list(source)
    elif os.path.lexists(source) or not glob.has_magic(source):
        yield from _local(source, os.path.dirname(source), problems)
    else:
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise FileNotFoundError(f"no file matches {printable(source)}")
        root = os.path.dirname(re.split(r"[*?\[]", source)[0])
        any_ending = not glob.has_magic(os.path.splitext(source)[1] or "*")
        for match in matches:
            if os.path.isfile(match):
                if any_ending or os.path.splitext(match)[1].lower() in AUDIO_SUFFIXES:
                    yield Task(match, name=_below(match, root))
            elif "**" not in source:  # which has named the files in the folders already
                yield from _local(match, root, problems)


def _local(source: str, root: str, problems: list[Failure] | None) -> Iterator[Task]:
    """A file, or the audio files in a folder."""

    def note(error: OSError) -> None:
        if problems is not None:
            reason = error.strerror or str(error)
            problems.append(Failure(str(error.filename), 0.0, None, f"folder not listed: {reason}"))

    if os.path.isdir(source):
        root = source
    for path in find_audio([source], on_error=note):
        yield Task(str(path), name=_below(str(path), root))


def _below(path: str, root: str) -> str:
    relative = os.path.relpath(path, root or ".")
    return _base(path) if relative.startswith("..") else Path(relative).as_posix()


def _base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1] if is_remote(path) else os.path.basename(path)


# ---------------------------------------------------------------------------------------------
# Lists
# ---------------------------------------------------------------------------------------------
def _read_list(source: str) -> Iterator[Task]:
    rows = _parquet_rows(source) if source.lower().endswith(".parquet") else _csv_rows(source)
    found = [_task(row, f"{printable(source)}, row {i}", source) for i, row in enumerate(rows, 1)]
    here = [os.path.abspath(task.path) for task in found if not is_remote(task.path)]
    root = os.path.commonpath(map(os.path.dirname, here)) if here else ""
    for task in found:
        remote = is_remote(task.path)
        name = _base(task.path) if remote else _below(os.path.abspath(task.path), root)
        yield task._replace(name=name)


def _csv_rows(source: str) -> Iterator[Mapping[str, Any]]:
    # utf-8-sig: spreadsheets write a byte order mark. Other bytes survive as in file names.
    with open(source, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        _require_path(source, reader.fieldnames or [])
        yield from reader


def _parquet_rows(source: str) -> Iterator[Mapping[str, Any]]:
    need("pyarrow.parquet", "embed", "Parquet files")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            _require_path(source, names)
            wanted = [name for name in ("path", "start", "end") if name in names]
            for batch in file.iter_batches(columns=wanted):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{printable(source)} is not a Parquet file: {error}") from error


def _require_path(source: str, names: Iterable[str]) -> None:
    if "path" not in names:
        raise ValueError(
            f"{printable(source)} has no column 'path'; a list of recordings needs it (and may "
            f"have 'start' and 'end' in seconds), but its columns are {list(names)}"
        )


def _task(row: Mapping[str, Any], where: str, source: str) -> Task:
    path = row["path"]
    if not isinstance(path, str) or not path:
        raise ValueError(f"{where}: no path")
    start, end = (_seconds(row.get(key), key, where) for key in ("start", "end"))
    start = start or 0.0
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"{where}: expected 0 <= start < end, got {start} and {end}")
    return Task(_resolve(path, source), start, end)


def _resolve(path: str, source: str) -> str:
    """The file that a list means; names may be written as `printable` shows them."""
    if is_remote(path):
        return path
    beside = os.path.join(os.path.dirname(source), path)
    plain = [path, beside]
    for candidate in (*plain, *map(unescaped, plain)):
        if os.path.exists(candidate):
            return candidate
    return path


def _seconds(value: Any, key: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key} must be a number of seconds, got {value!r}") from None
    if math.isnan(seconds):
        return None  # how pandas writes a missing value
    if math.isinf(seconds):
        raise ValueError(f"{where}: {key} must be finite, got {value!r}")
    return seconds
