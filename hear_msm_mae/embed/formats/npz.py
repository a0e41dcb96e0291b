"""NPZ files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..table import Block, Table, from_json
from .common import Format, array_reader, arrays, replaced


class Npz(Format):
    """One .npz file: `paths`, `start`, `seconds` (one per clip), `embeddings` (r, d); for
    timestamps `timestamps` in ms and `clip`, the index into `paths`, for each row; `channel`
    where one was chosen; `column_NAME` for columns of lists; `recordings`: what is done, as JSON.
    """

    def read(self, path: Path) -> Table:
        """See `Format`."""
        try:
            with zipfile.ZipFile(path) as file:
                if file.getinfo("recordings.npy").compress_type != zipfile.ZIP_STORED:
                    raise ValueError("recordings are compressed")
            with np.load(path, allow_pickle=False) as stored:
                table, _ = from_json(stored["recordings"].tobytes())
            rows = _member(path, "embeddings.npy", (table.total_rows, table.width), table.dtype)
            times = None
            if table.timestamps:
                times = _member(path, "timestamps.npy", (table.total_rows,), np.dtype(np.float64))
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, KeyError) as error:
            raise ValueError(f"it is not a file of this command ({error})") from error
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


def _member(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """A reader of an array that is stored without compression."""
    with zipfile.ZipFile(path) as file, path.open("rb") as raw:
        info = file.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        with file.open(info) as member:
            np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0(member)
            offset = member.tell()
        if header != (shape, False, dtype):
            raise ValueError(f"{name} is not as it was written")
        # The name and the extra field lie between the local header and the data.
        raw.seek(info.header_offset + 26)
        lengths = np.frombuffer(raw.read(4), "<u2")
        offset += info.header_offset + 30 + int(lengths.sum())
    return array_reader(path, offset, shape, dtype)


def start_npy(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an .npy file; the data follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
