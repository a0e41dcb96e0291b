"""Parquet files."""

from __future__ import annotations

import base64
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import need
from ..table import Block, Table, from_json
from .common import Format, block_reader, clip_columns, replaced, require_shape, understood

_KEY = b"hear_msm_mae"
# The list of recordings is compressed, because readers refuse metadata above 100 MB by default.
_MAX_JSON = 2**30
_LIMITS = {"thrift_string_size_limit": 2**31 - 1, "thrift_container_size_limit": 2**31 - 1}


class Parquet(Format):
    """One .parquet file, a row per embedding.

    The columns are `path`, `start` and `end` of the clip in seconds, `timestamp_ms` (timestamps
    only), `channel` (if one was chosen), columns of lists, and `embedding`, a fixed-size list of
    float32 or float16. The schema's metadata holds each setting under "hear_msm_mae.NAME", as text.
    """

    def needs(self) -> None:
        """Needs pyarrow."""
        need("pyarrow.parquet", "embed", "Parquet files")

    def read(self, path: Path) -> Table:
        """See `Format`."""
        return read_parquet(lambda: path.open("rb"))

    def write(self, path: Path, table: Table) -> None:
        """See `Format`."""
        with replaced(path) as temporary, temporary.open("wb") as file:
            write_parquet(file, table)


def read_parquet(open_: Callable[[], Any]) -> Table:
    """Read a file that `write_parquet` has written.

    Args:
        open_: function that opens the file for binary reading; it is called several times.

    Raises:
        ValueError: `write_parquet` did not write the file, or it is damaged.
    """
    import pyarrow.parquet as pq

    with understood():
        with open_() as source, pq.ParquetFile(source, **_LIMITS) as file:
            metadata, schema = file.metadata, file.schema_arrow
        packed = base64.b64decode(schema.metadata[_KEY])
        table, _ = from_json(zlib.decompressobj().decompress(packed, _MAX_JSON))
        field = schema.field("embedding").type
        kind = np.dtype(field.value_type.to_pandas_dtype())
        found = metadata.num_rows, field.list_size, kind
        require_shape(found, (table.total_rows, table.width, table.dtype))
    columns = ["embedding", *(["timestamp_ms"] if table.timestamps else [])]
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def read(number: int) -> Block:
        with open_() as source, pq.ParquetFile(source, metadata=metadata) as file:
            group = file.read_row_group(number, columns)
        rows = group["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        times = group["timestamp_ms"].to_numpy() if table.timestamps else None
        return Block(rows.reshape(-1, table.width), times)

    table.rows_of = block_reader(list(itertools.accumulate(sizes)), read)
    return table


def write_parquet(file: Any, table: Table) -> None:
    """Write a table into an open binary file."""
    import pyarrow.parquet as pq

    batches = arrow_batches(table)
    first = next(batches)
    # Dictionary encoding shortens text. For embeddings it would only cost time.
    text = [field.name for field in first.schema if field.type == "string"]
    with pq.ParquetWriter(file, first.schema, use_dictionary=text) as writer:
        for batch in itertools.chain([first], batches):
            writer.write_table(batch)


def arrow_batches(table: Table, plain: bool = False) -> Iterator[Any]:
    """Arrow tables with the columns of `Parquet`, of about `BLOCK_BYTES` of embeddings each.

    Args:
        table: its rows are read block by block. Without rows there is one empty Arrow table.
        plain: leave out the metadata, and write float32.
    """
    import pyarrow as pa

    clips = {name: pa.array(values) for name, values in clip_columns(table).items()}
    for name, array in clips.items():
        if array.type == pa.null():  # without any value
            clips[name] = array.cast(pa.string())
    dtype = np.dtype(np.float32) if plain else table.dtype
    values = pa.from_numpy_dtype(dtype)
    types = {"path": pa.string(), "start": pa.float64(), "end": pa.float64()}
    fields = [(name, types.get(name, array.type)) for name, array in clips.items()]
    if table.timestamps:
        fields.insert(3, ("timestamp_ms", pa.float64()))
    fields.append(("embedding", pa.list_(values, table.width)))
    schema = pa.schema(fields, metadata=None if plain else _metadata(table))
    if not table.total_rows:
        yield schema.empty_table()
    for index, block in table.indexed():
        columns = {name: array.take(pa.array(index)) for name, array in clips.items()}
        if block.times_ms is not None:
            columns["timestamp_ms"] = pa.array(block.times_ms)
        flat = pa.array(np.ascontiguousarray(block.rows, dtype).ravel())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, table.width)
        yield pa.table([columns[name] for name in schema.names], schema=schema)


def _metadata(table: Table) -> dict[bytes, bytes]:
    packed = base64.b64encode(zlib.compress(table.to_json().encode(), 1))
    settings = {f"hear_msm_mae.{k}".encode(): str(v).encode() for k, v in table.settings.items()}
    return {**settings, _KEY: packed}
