"""CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..table import Table
from .common import Format, clip_columns, csv_cell


class Csv(Format):
    """One .csv file, a row per embedding.

    The columns are those of `Parquet`, with the values of the embedding in `e0`, `e1`, ...
    Text is escaped so that no spreadsheet computes it as a formula.
    """

    readable = False

    def read(self, path: Path) -> Table:
        """Refuse: rows of a CSV file do not identify their recording."""
        raise ValueError("a CSV file cannot be continued")

    def save(self, path: Path, table: Table) -> None:
        """See `Format`."""
        clips = clip_columns(table)
        names = list(map(csv_cell, clips))
        times = ["timestamp_ms"] if table.timestamps else []
        # With so many digits the same values can be read back.
        line = f",%.{5 if table.dtype == np.float16 else 9}g" * table.width + "\n"
        cells = [list(map(csv_cell, values)) for values in clips.values()]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="")
            writer.writerow([*names[:3], *times, *names[3:]])
            file.write("".join(f",e{i}" for i in range(table.width)) + "\n")
            for index, block in table.indexed():
                for i, (clip, row) in enumerate(zip(index, block.rows, strict=True)):
                    values = [column[clip] for column in cells]
                    if block.times_ms is not None:
                        values.insert(3, float(block.times_ms[i]))
                    writer.writerow(values)
                    file.write(line % tuple(row.tolist()))
