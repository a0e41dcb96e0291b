"""Events (start, end, label), and files of them: CSV, and tables for Audacity and Raven."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import SAMPLE_RATE, parse_name
from ..embed.formats.common import csv_cell
from ..embed.table import Table
from ..files import replacing

_TOLERANCE = 1e-6  # s, between neighbouring windows


class Event(NamedTuple):
    """A part of a recording with a label: start and end in seconds, and mean probability."""

    path: str
    start: float
    end: float
    label: str
    probability: float


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
    current = -1
    # The last event of each label, which may continue: start, end, sum of probabilities, rows.
    last: dict[int, tuple[float, float, float, int]] = {}

    def ended(c: int) -> Iterator[Event]:
        start, end, total, rows = last.pop(c)
        if end - start >= shortest:
            yield Event(paths[current], start, end, labels[c], total / rows)

    for index, block in table.indexed():
        for i, number in enumerate(index):
            clip = table.clips[number]
            if clip.recording != current:
                for c in list(last):
                    yield from ended(c)
                current = clip.recording
            start, end = clip.start, clip.end
            if block.times_ms is not None:
                time = float(block.times_ms[i]) / 1000
                start, end = max(start, time - half), min(end, time + half)
            for c in np.flatnonzero(block.rows[i] >= threshold).tolist():
                if c in last and start > last[c][1] + gap + _TOLERANCE:
                    yield from ended(c)
                first, stop, total, rows = last.get(c, (start, end, 0.0, 0))
                last[c] = first, max(stop, end), total + float(block.rows[i, c]), rows + 1
    for c in list(last):
        yield from ended(c)


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------
def csv_lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Rows as CSV, escaped so that no spreadsheet computes a cell as a formula."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([csv_cell(row[name]) for name in names] for row in rows)
    return file.getvalue()


def audacity_labels(events: Iterable[Event]) -> str:
    """A label track of Audacity: start, end and label, separated by tabs."""
    return "".join(f"{e.start:.6f}\t{e.end:.6f}\t{_one_line(e.label)}\n" for e in events)


def raven_table(events: Iterable[Event], sample_rate: int = SAMPLE_RATE) -> str:
    """A selection table of Raven; selections cover all frequencies of a model of that rate."""
    names = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)")
    lines = ["\t".join((*names, "Low Freq (Hz)", "High Freq (Hz)", "Label", "Probability"))]
    for number, e in enumerate(events, 1):
        cells = (number, "Spectrogram 1", 1, f"{e.start:.6f}", f"{e.end:.6f}", 0, sample_rate // 2)
        lines.append("\t".join(map(str, (*cells, _one_line(e.label), f"{e.probability:.4f}"))))
    return "\n".join(lines) + "\n"


def write_label_files(table: Table, events: Iterable[Event], folder: Path, kind: str) -> int:
    """Write a label file for each recording, also for those without events.

    Args:
        table: the recordings.
        kind: "audacity" or "raven".

    Returns:
        The number of files; each has the name of its recording and the ending .txt.
    """
    by_path: dict[str, list[Event]] = {path: [] for path in table.paths()}
    for event in events:
        by_path[event.path].append(event)
    names = dict(zip(table.paths(), (x.name for x in table.recordings), strict=True))
    rate = (parse_name(table.settings.get("model", "")) or {}).get("sample_rate", SAMPLE_RATE)
    taken: set[str] = set()
    for path, found in by_path.items():
        parts = [part for part in names[path].split("/") if part not in ("", ".", "..")]
        base = "/".join(parts) or "recording"
        several = itertools.chain([base], (f"{base}-{i}" for i in itertools.count(2)))
        name = next(name for name in several if name not in taken)
        taken.add(name)
        found.sort(key=lambda event: (event.start, event.end))
        with replacing(folder / f"{name}.txt") as temporary:
            text = audacity_labels(found) if kind == "audacity" else raven_table(found, rate)
            temporary.write_text(text, "utf-8")
    return len(by_path)


def _one_line(label: str) -> str:
    return " ".join(label.split())
