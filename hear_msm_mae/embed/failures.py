"""`OUT.errors.csv`: what was asked for and is not in the output."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from .formats.common import csv_text, replaced
from .sources import Failure

COLUMNS = ("path", "start", "end", "reason", "file")  # file: the absolute path


def errors_path(output: str | Path) -> Path:
    """Where the failures of an output are listed."""
    return Path(f"{os.fspath(output).rstrip('/')}.errors.csv")


def rewrite(output: str | Path, failures: Sequence[Failure], settled: set[str]) -> Path | None:
    """Bring the list up to date, or remove it when nothing is left.

    Args:
        failures: of this run.
        settled: absolute paths of what this run was asked for; what earlier runs said of others
            stays.

    Returns:
        The list, None when there is none.
    """
    path = errors_path(output)
    new = []
    for failure in failures:
        end = "" if failure.end is None else str(failure.end)
        texts = failure.path, str(failure.start), end, failure.reason, _absolute(failure.path)
        new.append(dict(zip(COLUMNS, map(csv_text, texts), strict=True)))
    settled = settled | {row["file"] for row in new}  # e.g. a folder that cannot be listed, again
    rows = [x for x in _read(path) if x["file"] not in settled and not _deleted(x)] + new
    if not rows:
        path.unlink(missing_ok=True)
        return None
    with (
        replaced(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def settled_name(where: str) -> str:
    """How the list names a recording."""
    return csv_text(where)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _deleted(row: dict[str, str]) -> bool:
    """Whether a file that could not be read was removed since; its folder is still there."""
    file = row["file"]
    unknown = "\\" in file or row["reason"].startswith("no such file")  # escaped, or never there
    return not unknown and os.path.isdir(os.path.dirname(file)) and not os.path.lexists(file)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                return []
            return [row for row in reader if None not in row and None not in row.values()]
    except (OSError, csv.Error):
        return []
