"""Tables and label files as text: CSV, and what Audacity and Raven open beside a recording."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..config import SAMPLE_RATE
from ..embed.formats.common import csv_cell


class Event(NamedTuple):
    """A stretch of a recording with a label; start and end in seconds, the mean probability."""

    path: str
    start: float
    end: float
    label: str
    probability: float


def csv_lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> str:
    """Rows as CSV in which no spreadsheet finds a formula."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    names = names or (list(rows[0]) if rows else [])
    writer.writerow(list(map(csv_cell, names)))
    writer.writerows([csv_cell(row[name]) for name in names] for row in rows)
    return file.getvalue()


def audacity_labels(events: Iterable[Event]) -> str:
    """A label track of Audacity: start, end and label, separated by tabs."""
    return "".join(f"{e.start:.6f}\t{e.end:.6f}\t{_one_line(e.label)}\n" for e in events)


def raven_table(events: Iterable[Event]) -> str:
    """A selection table of Raven; selections cover all frequencies of the model."""
    names = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)")
    lines = ["\t".join((*names, "Low Freq (Hz)", "High Freq (Hz)", "Label", "Probability"))]
    for number, e in enumerate(events, 1):
        cells = (number, "Spectrogram 1", 1, f"{e.start:.6f}", f"{e.end:.6f}", 0, SAMPLE_RATE // 2)
        lines.append("\t".join(map(str, (*cells, _one_line(e.label), f"{e.probability:.4f}"))))
    return "\n".join(lines) + "\n"


def _one_line(label: str) -> str:
    return " ".join(label.split())
