"""Files of arrays: NPZ and HDF5."""

from __future__ import annotations

import math
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..table import Reader, Table, from_json
from .common import Format, array_reader, clip_columns, npy_header, require_shape, told


class Npz(Format):
    """One .npz file of arrays.

    For each clip: `paths`, `start` and `seconds`, `channel` if one was chosen, and `column_NAME`
    for columns of lists. For each row: `embeddings` (r, d) and, with timestamps, `timestamps` in
    ms and `clip`, the index of its clip. `recordings` lists the complete recordings as JSON.
    """

    def load(self, path: Path) -> Table:
        """See `Format`."""
        recordings, (size,) = _member(path, "recordings.npy", np.dtype(np.uint8))
        table = from_json(recordings(0, size).tobytes())
        table.read, shape = _member(path, "embeddings.npy", table.dtype)
        require_shape(shape, (table.total_rows, table.width))
        return table

    def save(self, path: Path, table: Table) -> None:
        """See `Format`."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
            for name, array in _arrays(table).items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            with file.open("embeddings.npy", "w", force_zip64=True) as member:
                member.write(npy_header((table.total_rows, table.width), table.dtype))
                for _, block in table.indexed():
                    member.write(np.ascontiguousarray(block.rows, table.dtype).data)


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

        columns = _arrays(table)
        _reserve(path, columns, table)
        with told(RuntimeError), h5py.File(path, "w") as file:
            for name, array in columns.items():
                if array.dtype.kind == "U":  # HDF5 cannot store NUL in a text
                    texts = [text.replace("\0", r"\x00") for text in array.tolist()]
                    file.create_dataset(name, data=texts, dtype=h5py.string_dtype("utf-8"))
                else:
                    file.create_dataset(name, data=array)
            shape = table.total_rows, table.width
            embeddings = file.create_dataset("embeddings", shape, table.dtype)
            row = 0
            for _, block in table.indexed():
                embeddings[row : row + len(block.rows)] = block.rows
                row += len(block.rows)


def _arrays(table: Table) -> dict[str, NDArray[Any]]:
    """All arrays of the file but the embeddings."""
    columns = clip_columns(table)
    paths, start, end = (columns.pop(name) for name in ("path", "start", "end"))
    found = {
        "paths": np.array(paths, str),
        "start": np.array(start, float),
        "seconds": np.array(end, float) - np.array(start, float),
    }
    for name, values in columns.items():
        known = name if name == "channel" else "column_" + re.sub(r"[/\\\0]", "_", name)
        while known in found:  # two names may differ in these characters only
            known += "_"
        missing = "" if any(isinstance(value, str) for value in values) else math.nan
        found[known] = np.array([missing if value is None else value for value in values])
    times = table.times_ms(0, table.total_rows)
    if times is not None:
        found |= {"timestamps": times, "clip": table.clip_of(0, table.total_rows)}
    return found | {"recordings": np.frombuffer(table.to_json().encode(), np.uint8)}


def _member(path: Path, name: str, dtype: np.dtype[Any]) -> tuple[Reader, tuple[int, ...]]:
    """A reader of an array that is stored without compression, and its shape."""
    with zipfile.ZipFile(path) as file, path.open("rb") as raw:
        info = file.getinfo(name)
        with file.open(info) as member:
            np.lib.format.read_magic(member)
            shape, fortran, stored = np.lib.format.read_array_header_1_0(member)
            offset = member.tell()
        if info.compress_type != zipfile.ZIP_STORED or fortran or stored != dtype:
            raise ValueError(f"{name} is stored in another way")
        # The name and an extra field lie between the local header and the data.
        raw.seek(info.header_offset + 26)
        offset += info.header_offset + 30 + int(np.frombuffer(raw.read(4), "<u2").sum())
    return array_reader(path, offset, shape, dtype), shape


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
