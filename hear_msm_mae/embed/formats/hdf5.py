"""HDF5 files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import need
from ..table import Block, Table, from_json
from .common import (
    ArrayReader,
    Format,
    array_reader,
    arrays,
    replaced,
    require_shape,
    told,
    understood,
)


class Hdf5(Format):
    """One HDF5 file with the arrays of an NPZ file as datasets (see `Npz`)."""

    def needs(self) -> None:
        """Needs h5py."""
        need("h5py", "embed", "HDF5 files")

    def read(self, path: Path) -> Table:
        """See `Format`."""
        import h5py

        with understood(), h5py.File(path, "r") as file:
            table, _ = from_json(_dataset(file, "recordings")[:].tobytes())
            rows = _reader(path, file, "embeddings", (table.total_rows, table.width), table.dtype)
            times = None
            if table.timestamps:
                shape, kind = (table.total_rows,), np.dtype(np.float64)
                times = _reader(path, file, "timestamps", shape, kind)
        table.rows_of = lambda first, n: Block(rows(first, n), times and times(first, n))
        return table

    def write(self, path: Path, table: Table) -> None:
        """See `Format`."""
        import h5py

        rows = table.total_rows
        columns = arrays(table)
        with (
            told(RuntimeError),
            replaced(path) as temporary,
            _room(temporary, columns, table),
            h5py.File(temporary, "w") as file,
        ):
            for name, array in columns.items():
                text = h5py.string_dtype("utf-8") if array.dtype.kind == "U" else None
                file.create_dataset(name, data=array.astype(object) if text else array, dtype=text)
            embeddings = file.create_dataset("embeddings", (rows, table.width), table.dtype)
            if table.timestamps:
                timestamps = file.create_dataset("timestamps", (rows,), np.float64)
                clip_of = file.create_dataset("clip", (rows,), np.int64)
            row = 0
            for index, block in table.indexed():
                part = slice(row, row + len(block.rows))
                embeddings[part] = block.rows
                if block.times_ms is not None:
                    timestamps[part], clip_of[part] = block.times_ms, index
                row = part.stop


@contextmanager
def _room(path: Path, columns: dict[str, NDArray[Any]], table: Table) -> Iterator[None]:
    """Reserve the space of the file; raise OSError if it does not fit.

    HDF5 cannot close a file on a full disk, and the process would crash at its end.
    """
    size = 2**16 + table.total_rows * (table.width * table.dtype.itemsize + 16 * table.timestamps)
    for array in columns.values():
        is_text = array.dtype.kind == "U"
        size += sum(64 + len(x.encode()) for x in array.tolist()) if is_text else array.nbytes
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    yield


def _dataset(file: Any, name: str) -> Any:
    """A dataset that is stored in the file itself, not behind a link or in another file."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    dataset = file[name]
    layout = dataset.id.get_create_plist()
    if layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_external_count():
        raise ValueError(f"{name} is stored in another way")
    return dataset


def _reader(
    path: Path, file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ArrayReader:
    dataset = _dataset(file, name)
    require_shape((*dataset.shape, dataset.dtype), (*shape, dtype))
    return array_reader(path, dataset.id.get_offset() or 0, shape, dtype)
