"""`OUT.errors.csv`: what was asked for and is not in the output."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from ..files import replacing
from .formats.common import csv_text
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
    rows = [row for row in _read(path) if row["file"] not in settled]
    known = {row["file"] for row in rows}
    for failure in failures:
        file = csv_text(_absolute(failure.path))
        if file in known:  # e.g. a folder that cannot be listed, again
            rows = [row for row in rows if row["file"] != file]
        end = "" if failure.end is None else str(failure.end)
        texts = csv_text(failure.path), str(failure.start), end, csv_text(failure.reason), file
        rows.append(dict(zip(COLUMNS, texts, strict=True)))
    if not rows:
        path.unlink(missing_ok=True)
        return None
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file_,
    ):
        writer = csv.DictWriter(file_, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def settled_name(where: str) -> str:
    """How the list names a recording."""
    return csv_text(where)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                return []
            return [row for row in reader if None not in row and None not in row.values()]
    except (OSError, csv.Error):
        return []
