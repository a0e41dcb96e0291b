"""DuckDB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...extras import need
from ..table import Block, Table, from_json
from .common import Format, replaced
from .parquet import arrow_batches


class DuckDb(Format):
    """One .duckdb file. The table `embeddings` has the columns of `Parquet`, with the embedding
    as FLOAT[d]; the table `hear_msm_mae` the settings (name, value) and, as JSON, what is done.
    """

    def needs(self) -> None:
        """Needs duckdb, and pyarrow to exchange columns."""
        need("duckdb", "duckdb", "DuckDB files")
        need("pyarrow", "duckdb", "DuckDB files")

    def read(self, path: Path) -> Table:
        """See `Format`."""
        import duckdb

        def fetch(query: str) -> dict[str, Any]:
            # A view in a file of somebody else may name any other file.
            safe: Any = {"enable_external_access": "false"}
            with duckdb.connect(str(path), read_only=True, config=safe) as file:
                return file.sql(query).fetchnumpy()

        try:
            (text,) = fetch("select value from hear_msm_mae where name = 'recordings'")["value"]
            table, _ = from_json(text)
            ((rows, last),) = zip(
                *fetch("select count(*) n, max(rowid) last from embeddings").values(), strict=True
            )
            if rows != table.total_rows or (rows and last != rows - 1):
                raise ValueError("its rows are not those that were written")
        except (duckdb.Error, TypeError, ValueError) as error:
            raise ValueError(f"it is not a file of this command ({error})") from error

        columns = "embedding" + (", timestamp_ms" if table.timestamps else "")

        def rows_of(first: int, count: int) -> Block:
            where = f"rowid >= {first} and rowid < {first + count}"
            found = fetch(f"select {columns} from embeddings where {where} order by rowid")
            rows = np.stack(found["embedding"]).astype(table.dtype)
            return Block(rows, found.get("timestamp_ms"))

        table.rows_of = rows_of
        return table

    def write(self, path: Path, table: Table) -> None:
        """See `Format`."""
        import duckdb

        settings = [(name, str(value)) for name, value in table.settings.items()]
        with replaced(path) as temporary, duckdb.connect(str(temporary)) as file:
            file.execute("create table hear_msm_mae (name varchar, value varchar)")
            file.executemany(
                "insert into hear_msm_mae values (?, ?)",
                [*settings, ("recordings", table.to_json())],
            )
            for number, batch in enumerate(arrow_batches(table, plain=True)):
                file.register("batch", batch)
                begin = "insert into embeddings" if number else "create table embeddings as"
                file.execute(f"{begin} select * from batch")
