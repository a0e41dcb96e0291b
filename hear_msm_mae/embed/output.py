"""The output of a run: which recordings are in it, which are missing, and how it is written."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..files import printable
from .cutting import Resume
from .formats import Format
from .sources import Recording
from .store import Store
from .table import Done, Table, combined


class Output:
    """The output of a run.

    Args:
        output: file or folder.
        format_: its format.
        store: the results of this run.
        base: the content of the existing output, which is extended; None if it is replaced.
        recordings: the input.
    """

    def __init__(
        self,
        output: Path,
        format_: Format,
        store: Store,
        base: Table | None,
        recordings: Sequence[Recording],
    ) -> None:
        self._output, self._format, self._store, self._base = output, format_, store, base
        self._recordings = recordings
        self._written = False
        self._stamps: dict[tuple[Any, ...], Any] = {}
        self._in_base: dict[tuple[Any, ...], int] = {}
        if base is not None:
            self._in_base = {tuple(done.key): i for i, done in enumerate(base.recordings)}

    def stamp(self, recording: Recording) -> Any:
        """The version of a recording's file; it is looked up once in a run."""
        key = recording.key
        if key not in self._stamps:
            self._stamps[key] = _stamp(recording)
        return self._stamps[key]

    def rest(self) -> list[Recording]:
        """The recordings that are not in the output yet, an incomplete one first."""
        rest = [recording for recording in self._recordings if not self._is_done(recording)]
        return sorted(rest, key=lambda recording: self.resume(recording) is None)

    def resume(self, recording: Recording) -> Resume | None:
        """The next piece of an incomplete recording."""
        return self._store.resume(recording.key, self.stamp(recording))

    def _is_done(self, recording: Recording) -> bool:
        stamp = self.stamp(recording)
        if self._store.is_done(recording.key, stamp):
            return True
        index = self._in_base.get(recording.key)
        return (
            index is not None
            and self._base is not None
            and (self._base.recordings[index].stamp == stamp)
        )

    def write(self) -> None:
        """Write the output: recordings of earlier runs first, then the input in its order."""
        new = self._store.table()
        tables = [new] if self._base is None else [self._base, new]
        places: dict[tuple[Any, ...], tuple[int, int]] = {}
        for number, table in enumerate(tables):
            for i, done in enumerate(table.recordings):
                places[tuple(done.key)] = number, i
        asked = {recording.key: recording for recording in self._recordings}
        order = [key for key in places if key not in asked]
        order += [key for key in asked if key in places]
        if not order:
            return
        table = combined(tables, [places[key] for key in order])
        for i, key in enumerate(order):
            if key in asked:
                table.recordings[i] = _done(asked[key], table.recordings[i].stamp)
        if self._base is not None and table.to_json() == self._base.to_json():
            return
        if self._store.replaces and not self._written and self._output.is_dir():
            with suppress(ValueError):  # it is empty
                self._format.clear(self._output)
        self._format.write(self._output, table)
        self._written = True
        if self._format.readable:
            written = self._read_again(table.total_rows)
            # Rows of earlier runs have other places in the file that was written.
            self._base = None if self._base is None else written

    def _read_again(self, rows: int) -> Table:
        """Read the output back. It must be complete, because the store is removed afterwards."""
        try:
            written = self._format.read(self._output)
        except ValueError as error:
            raise OSError(f"it cannot be read back: {error}") from error
        if written.total_rows != rows:
            raise OSError(f"it holds {written.total_rows} rows instead of {rows}")
        return written


def _stamp(recording: Recording) -> Any:
    """Size and modification time of a file, SHA-256 of audio in memory, None for a URL."""
    item = recording.item
    if item is None:
        try:
            status = Path(recording.where).stat()
            return [status.st_size, status.st_mtime_ns]
        except OSError:  # also for a URL
            return None
    if hasattr(item, "get_all_samples"):
        return secrets.token_hex(8)  # not decoded yet, so it counts as new each time
    digest = hashlib.sha256()
    for part in item.values() if isinstance(item, Mapping) else item:
        array = hasattr(part, "__array__")
        digest.update(np.asarray(part).tobytes() if array else repr(part).encode())
    return digest.hexdigest()


def _done(recording: Recording, stamp: Any) -> Done:
    columns = dict(recording.columns)
    return Done(list(recording.key), printable(recording.path), recording.name, stamp, columns)


def existing_table(output: Path, format_: Format) -> Table | None:
    """The content of an existing output; None if there is none or its folder is empty.

    Raises:
        ValueError: this package did not write it, or it is damaged.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        return format_.read(output)
    except ValueError as error:
        # --overwrite does not clear a folder of other files, so the message does not offer it.
        way = "" if output.is_dir() else ", or pass --overwrite"
        raise ValueError(
            f"{printable(output)} exists and cannot be continued: {error}; choose another "
            f"output{way}"
        ) from error
