"""HDF5 files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..table import Table, from_json
from .common import Format, array_reader, require_shape, told
from .npz import arrays


class Hdf5(Format):
    """One HDF5 file with the arrays of an NPZ file as datasets (see `Npz`)."""

    packages = ("h5py",)

    def load(self, path: Path) -> Table:
        """See `Format`."""
        import h5py

        with h5py.File(path, "r") as file:
            table = from_json(_dataset(file, "recordings")[:].tobytes())
            rows = _dataset(file, "embeddings")
            shape = table.total_rows, table.width
            require_shape((*rows.shape, rows.dtype), (*shape, table.dtype))
            table.read = array_reader(path, rows.id.get_offset() or 0, shape, table.dtype)
        return table

    def save(self, path: Path, table: Table) -> None:
        """See `Format`."""
        import h5py

        columns = arrays(table)
        _reserve(path, columns, table)
        with told(RuntimeError), h5py.File(path, "w") as file:
            for name, array in columns.items():
                text = h5py.string_dtype("utf-8") if array.dtype.kind == "U" else None
                file.create_dataset(name, data=array.astype(object) if text else array, dtype=text)
            shape = table.total_rows, table.width
            embeddings = file.create_dataset("embeddings", shape, table.dtype)
            row = 0
            for _, block in table.indexed():
                embeddings[row : row + len(block.rows)] = block.rows
                row += len(block.rows)


def _reserve(path: Path, columns: dict[str, NDArray[Any]], table: Table) -> None:
    """Reserve the space of the file; raise OSError if it does not fit.

    HDF5 cannot close a file on a full disk, and the process would crash at its end.
    """
    size = 2**16 + table.total_rows * table.width * table.dtype.itemsize
    for array in columns.values():
        is_text = array.dtype.kind == "U"
        size += sum(64 + len(x.encode()) for x in array.tolist()) if is_text else array.nbytes
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


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
