"""Parquet and HDF5 outputs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import need
from ..files import replacing
from .content import Block, Clip, Content, merged, with_file_ends

_READ_ROWS = 4096
_KEY = b"hear_msm_mae"
_ENDS_KEY = b"hear_msm_mae_file_end"  # 0 or 1 for each clip


class Parquet:
    """One .parquet file, a row per embedding: `path`, `start` and `end` of the clip in seconds,
    `timestamp_ms` (timestamps only), and `embedding`, a fixed-size list of float32 or float16.

    The settings are in the metadata of the schema, under "hear_msm_mae"; `Clip.file_end` as well,
    where single stretches were asked for.
    """

    def check(self) -> None:
        """Needs pyarrow."""
        need("pyarrow.parquet", "embed", "Parquet files")

    def read(self, path: Path) -> Content:
        """See `Format`."""
        return read_parquet(lambda: path.open("rb"))

    def write(self, path: Path, content: Content) -> None:
        """See `Format`."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            write_parquet(file, content)


def read_parquet(open_: Callable[[], Any]) -> Content:
    """What a file holds that `write_parquet` has written.

    Args:
        open_: opens the file for binary reading, as often as it is called.

    Raises:
        ValueError: it is another file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_() as source, pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            settings = json.loads((schema.metadata or {})[_KEY])
            field = schema.field("embedding").type
            ends = map(int, schema.metadata.get(_ENDS_KEY, b"").decode())
            clips = with_file_ends(_runs(file), settings, ends)
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        raise ValueError(f"it is not a file of this command ({error})") from error
    timestamps = "timestamp_ms" in schema.names
    width, dtype = field.list_size, np.dtype(field.value_type.to_pandas_dtype())
    columns = ["embedding", *(["timestamp_ms"] if timestamps else [])]

    def blocks() -> Iterator[Block]:
        with open_() as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(_READ_ROWS, columns=columns):
                rows = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
                times = batch["timestamp_ms"].to_numpy() if timestamps else None
                yield Block(rows.reshape(-1, width), times)

    return Content(clips, settings, width, dtype, timestamps, blocks)


def parquet_schema(content: Content) -> Any:
    """Arrow schema of a content's rows."""
    import pyarrow as pa

    times = [pa.field("timestamp_ms", pa.float64())] if content.timestamps else []
    values = pa.float16() if content.dtype == np.float16 else pa.float32()
    metadata = {_KEY: json.dumps(content.settings).encode()}
    if content.settings["stretches"]:
        metadata[_ENDS_KEY] = _file_ends(content).encode()
    return pa.schema(
        [
            pa.field("path", pa.string()),
            pa.field("start", pa.float64()),
            pa.field("end", pa.float64()),
            *times,
            pa.field("embedding", pa.list_(values, content.width)),
        ],
        metadata=metadata,
    )


def _file_ends(content: Content) -> str:
    """A 0 or 1 for each clip that `_runs` finds; equal ones are one there, with timestamps."""
    if not content.timestamps:
        return "".join("01"[clip.file_end] for clip in content.clips)
    same = itertools.groupby(content.clips, lambda clip: clip[:3])
    return "".join("01"[any(clip.file_end for clip in clips)] for _, clips in same)


def write_parquet(file: Any, content: Content) -> None:
    """Write a content into an open binary file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(content)
    paths = pa.array([clip.path for clip in content.clips], pa.string())
    starts = np.array([clip.start for clip in content.clips])
    ends = np.array([clip.end for clip in content.clips])
    # Dictionaries are for names; floating-point noise only costs time there.
    with pq.ParquetWriter(file, schema, use_dictionary=["path"]) as writer:
        for index, block in merged(content.indexed()):
            columns = [paths.take(pa.array(index)), pa.array(starts[index]), pa.array(ends[index])]
            if block.times_ms is not None:
                columns.append(pa.array(block.times_ms))
            values = pa.array(np.ascontiguousarray(block.rows).ravel())
            columns.append(pa.FixedSizeListArray.from_arrays(values, content.width))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _runs(file: Any) -> list[Clip]:
    """Clips: neighbouring rows of the same stretch of the same file."""
    clips: list[Clip] = []
    names = file.schema_arrow.names
    one_each = "timestamp_ms" not in names
    for batch in file.iter_batches(2**16, columns=["path", "start", "end"]):
        paths, starts, ends = (batch[name].to_pylist() for name in ("path", "start", "end"))
        for path, start, end in zip(paths, starts, ends, strict=True):
            if not one_each and clips and clips[-1][:3] == (path, start, end):
                clips[-1] = clips[-1]._replace(rows=clips[-1].rows + 1)
            else:
                clips.append(Clip(path, start, end, 1, ""))
    return clips


class Hdf5:
    """One HDF5 file with the datasets of the NPZ file: `paths`, `seconds`, `start`, `embeddings`
    (r, d), for timestamps `timestamps` in ms and `clip`, and `file_end` where single stretches were
    asked for. The settings are an attribute.
    """

    def check(self) -> None:
        """Needs h5py."""
        need("h5py", "embed", "HDF5 files")

    def read(self, path: Path) -> Content:
        """See `Format`."""
        import h5py

        try:
            with h5py.File(path, "r") as file:
                settings = json.loads(file.attrs["hear_msm_mae"])
                # Names are stored as bytes that are valid UTF-8.
                paths = [name.decode() for name in file["paths"][:]]
                starts, seconds = file["start"][:].tolist(), file["seconds"][:].tolist()
                rows, width = file["embeddings"].shape
                dtype = file["embeddings"].dtype
                timestamps = "timestamps" in file
                ends = file["file_end"][:] if "file_end" in file else None
                counts: NDArray[Any] = np.ones(len(paths), int)
                if timestamps:
                    counts = np.bincount(file["clip"][:], minlength=len(paths))
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"it is not a file of this command ({error})") from error
        clips = [
            Clip(name, start, start + length, count, "")
            for name, start, length, count in zip(
                paths, starts, seconds, counts.tolist(), strict=True
            )
        ]
        clips = with_file_ends(clips, settings, ends)

        def blocks() -> Iterator[Block]:
            with h5py.File(path, "r") as file:
                for first in range(0, rows, _READ_ROWS):
                    part = slice(first, first + _READ_ROWS)
                    times = file["timestamps"][part] if timestamps else None
                    yield Block(file["embeddings"][part], times)

        return Content(clips, settings, width, dtype, timestamps, blocks)

    def write(self, path: Path, content: Content) -> None:
        """See `Format`."""
        import h5py

        clips, rows = content.clips, content.total_rows
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["hear_msm_mae"] = json.dumps(content.settings)
            text = h5py.string_dtype("utf-8")
            file.create_dataset("paths", data=[clip.path for clip in clips], dtype=text)
            file["seconds"] = [clip.end - clip.start for clip in clips]
            file["start"] = [clip.start for clip in clips]
            if content.settings["stretches"]:
                file["file_end"] = [clip.file_end for clip in clips]
            embeddings = file.create_dataset("embeddings", (rows, content.width), content.dtype)
            if content.timestamps:
                timestamps = file.create_dataset("timestamps", (rows,), np.float64)
                clip_of = file.create_dataset("clip", (rows,), np.int64)
            row = 0
            for index, block in merged(content.indexed()):
                part = slice(row, row + len(block.rows))
                embeddings[part] = block.rows
                if block.times_ms is not None:
                    timestamps[part], clip_of[part] = block.times_ms, index
                row = part.stop
