"""`OUT.errors.csv`: the recordings that are not in the output, and why."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..files import printable
from .formats.common import csv_text, replaced
from .remote import is_remote
from .sources import FOLDER, Failure

COLUMNS = ("path", "start", "end", "reason", "file")  # file: the absolute path


def rewrite(output: Path, failures: Sequence[Failure], recordings: Iterable[str]) -> Path | None:
    """Bring the list up to date, or remove it when nothing is left.

    Args:
        output: the output; the list is `OUTPUT.errors.csv`.
        failures: the failures of this run.
        recordings: absolute paths of all recordings of this run; lines about others stay.

    Returns:
        The path of the list, or None when it would be empty.

    Raises:
        ValueError: there is a file of that name that is not such a list.
    """
    path, old = read_earlier(output)
    new = []
    for failure in failures:
        end = "" if failure.end is None else str(failure.end)
        file = failure.path if is_remote(failure.path) else os.path.abspath(failure.path)
        texts = failure.path, str(failure.start), end, failure.reason, file
        new.append(dict(zip(COLUMNS, map(csv_text, texts), strict=True)))
    # Of this run are also folders that cannot be listed.
    settled = {row["file"] for row in new} | set(map(csv_text, recordings))
    rows = [x for x in old if x["file"] not in settled and not _outdated(x)] + new
    if not rows:
        path.unlink(missing_ok=True)
        return None
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file_:
        writer = csv.DictWriter(file_, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_earlier(output: Path) -> tuple[Path, list[dict[str, str]]]:
    """Path and rows of the list that earlier runs left.

    Raises:
        ValueError: there is a file of that name that is not such a list.
    """
    path = output.with_name(f"{output.name}.errors.csv")
    if not os.path.lexists(path):
        return path, []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) == COLUMNS:
                rows = [x for x in reader if None not in x and None not in x.values()]
                return path, rows
    except (OSError, csv.Error):
        pass
    raise ValueError(
        f"{printable(path)}, where the recordings that cannot be read are listed, is another file; "
        "rename it or choose another output"
    )


def _outdated(row: dict[str, str]) -> bool:
    """Whether a file is gone and its folder still there, or a folder can be listed again."""
    file = row["file"]
    if row["reason"].startswith(FOLDER):
        return os.access(file, os.R_OK | os.X_OK) or not os.path.lexists(file)
    # An escaped name cannot be looked up, and a file that never existed was not removed.
    unknown = "\\" in file or row["reason"].startswith("no such file")
    return not unknown and os.path.isdir(os.path.dirname(file)) and not os.path.lexists(file)
