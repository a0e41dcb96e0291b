"""Parquet files."""

from __future__ import annotations

import base64
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..table import Table, from_json
from .common import Format, block_reader, clip_columns, require_shape

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

    packages = ("pyarrow.parquet",)

    def load(self, path: Path) -> Table:
        """See `Format`."""
        import pyarrow.parquet as pq

        # pyarrow does not open names that are not UTF-8.
        with path.open("rb") as source, pq.ParquetFile(source, **_LIMITS) as file:
            metadata, schema = file.metadata, file.schema_arrow
        packed = base64.b64decode(schema.metadata[_KEY])
        table = from_json(zlib.decompressobj().decompress(packed, _MAX_JSON))
        field = schema.field("embedding").type
        kind = np.dtype(field.value_type.to_pandas_dtype())
        found = metadata.num_rows, field.list_size, kind
        require_shape(found, (table.total_rows, table.width, table.dtype))

        def rows(number: int) -> NDArray[Any]:
            with path.open("rb") as source, pq.ParquetFile(source, metadata=metadata) as file:
                group = file.read_row_group(number, ["embedding"])
            values = group["embedding"].combine_chunks().flatten()
            return values.to_numpy(zero_copy_only=False).reshape(-1, table.width)

        sizes = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        table.read = block_reader(list(itertools.accumulate(sizes)), rows)
        return table

    def save(self, path: Path, table: Table) -> None:
        """See `Format`."""
        import pyarrow.parquet as pq

        batches = arrow_batches(table)
        first = next(batches)
        # Dictionary encoding shortens text. For embeddings it would only cost time.
        text = [field.name for field in first.schema if field.type == "string"]
        with (
            path.open("wb") as file,
            pq.ParquetWriter(file, first.schema, use_dictionary=text) as writer,
        ):
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
