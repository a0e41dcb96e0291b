"""NPZ files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..table import Block, Table, from_json
from .common import ArrayReader, Format, array_reader, arrays, replaced, require_shape, understood


class Npz(Format):
    """One .npz file of arrays.

    For each clip: `paths`, `start` and `seconds`, `channel` if one was chosen, and `column_NAME`
    for columns of lists. For each row: `embeddings` (r, d) and, with timestamps, `timestamps` in
    ms and `clip`, the index of its clip. `recordings` lists the complete recordings as JSON.
    """

    def read(self, path: Path) -> Table:
        """See `Format`."""
        with understood():
            ledger, (size,) = _member(path, "recordings.npy", np.dtype(np.uint8))
            table, _ = from_json(ledger(0, size).tobytes())
            rows, shape = _member(path, "embeddings.npy", table.dtype)
            require_shape(shape, (table.total_rows, table.width))
            times = None
            if table.timestamps:
                times, shape = _member(path, "timestamps.npy", np.dtype(np.float64))
                require_shape(shape, (table.total_rows,))
        table.rows_of = lambda first, n: Block(rows(first, n), times and times(first, n))
        return table

    def write(self, path: Path, table: Table) -> None:
        """See `Format`."""
        with (
            replaced(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file,
        ):
            for name, array in arrays(table).items():
                _add(file, name, array)
            index, times = [np.empty(0, np.int64)], [np.empty(0)]
            with file.open("embeddings.npy", "w", force_zip64=True) as member:
                start_npy(member, (table.total_rows, table.width), table.dtype)
                for numbers, block in table.indexed():
                    member.write(np.ascontiguousarray(block.rows, table.dtype).data)
                    if block.times_ms is not None:
                        index.append(numbers)
                        times.append(block.times_ms)
            if table.timestamps:
                _add(file, "timestamps", np.concatenate(times))
                _add(file, "clip", np.concatenate(index))


def _add(file: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _member(path: Path, name: str, dtype: np.dtype[Any]) -> tuple[ArrayReader, tuple[int, ...]]:
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


def start_npy(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an .npy file; the data follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
