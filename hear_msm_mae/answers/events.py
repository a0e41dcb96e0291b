"""Events (start, end, label), and files of them: CSV, and tables for Audacity and Raven."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..config import SAMPLE_RATE
from ..embed.formats.common import csv_cell
from ..embed.table import Table

_TOLERANCE = 1e-6  # s, between neighbouring windows


class Event(NamedTuple):
    """A part of a recording with a label: start and end in seconds, and mean probability."""

    path: str
    start: float
    end: float
    label: str
    probability: float


@dataclasses.dataclass
class _Open:
    """An event that may continue."""

    recording: int
    start: float
    end: float
    sum: float = 0.0
    count: int = 0


def csv_lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> str:
    """Rows as CSV, escaped so that no spreadsheet computes a cell as a formula."""
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


def check_events(threshold: float, gap: float, shortest: float) -> None:
    """Raise ValueError for a threshold outside (0, 1] and for negative seconds."""
    if not 0 < threshold <= 1 or not gap >= 0 or not shortest >= 0:
        raise ValueError(
            "expected 0 < threshold <= 1 and seconds of at least 0, got threshold "
            f"{threshold}, gap {gap}, shortest {shortest}"
        )


def events_of(
    table: Table, labels: Sequence[str], threshold: float, gap: float, shortest: float
) -> Iterator[Event]:
    """Join neighbouring rows that have a label; see `Predictions.events`.

    Args:
        table: rows are (c,) probabilities, in the order of time in each recording.
    """
    check_events(threshold, gap, shortest)
    paths, half = table.paths(), (table.settings.get("hop_ms") or 0) / 2000
    open_: dict[int, _Open] = {}
    current = -1
    for index, block in table.indexed():
        there = block.rows >= threshold
        for i, number in enumerate(index):
            clip = table.clips[number]
            if clip.recording != current:
                yield from _closed(open_, paths, labels, shortest)
                current = clip.recording
            start, end = clip.start, clip.end
            if block.times_ms is not None:
                time = float(block.times_ms[i]) / 1000
                start, end = max(start, time - half), min(end, time + half)
            for c in np.flatnonzero(there[i]).tolist():
                event = open_.get(c)
                if event is not None and start > event.end + gap + _TOLERANCE:
                    yield from _closed({c: event}, paths, labels, shortest)
                    event = None
                if event is None:
                    event = open_[c] = _Open(clip.recording, start, end)
                event.end = max(event.end, end)
                event.sum += float(block.rows[i, c])
                event.count += 1
    yield from _closed(open_, paths, labels, shortest)


def _closed(
    open_: dict[int, _Open], paths: Sequence[str], labels: Sequence[str], shortest: float
) -> Iterator[Event]:
    for c, x in sorted(open_.items(), key=lambda item: item[1].start):
        if x.end - x.start >= shortest:
            yield Event(paths[x.recording], x.start, x.end, labels[c], x.sum / x.count)
    open_.clear()
