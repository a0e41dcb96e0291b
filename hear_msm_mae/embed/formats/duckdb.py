"""DuckDB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..table import BLOCK_BYTES, Table, from_json
from .common import Format, block_reader, require_shape, told
from .parquet import arrow_batches


class DuckDb(Format):
    """One .duckdb file with two tables.

    `embeddings` has the columns of `Parquet`, with the embedding as FLOAT[d]. `hear_msm_mae` has
    the settings (name, value), and the list of complete recordings as JSON.
    """

    packages = ("duckdb", "pyarrow")  # pyarrow exchanges columns

    def load(self, path: Path) -> Table:
        """See `Format`."""
        import duckdb

        def fetch(query: str) -> dict[str, Any]:
            # A view in a hostile file could read any other file.
            safe: Any = {"enable_external_access": "false"}
            with duckdb.connect(str(path.absolute()), read_only=True, config=safe) as file:
                return file.sql(query).fetchnumpy()

        (text,) = fetch("select value from hear_msm_mae where name = 'recordings'")["value"]
        table = from_json(text)
        found = fetch("select count(*) n, coalesce(max(rowid) + 1, 0) m from embeddings")
        require_shape([int(x[0]) for x in found.values()], [table.total_rows] * 2)
        step = max(1, BLOCK_BYTES // (4 * table.width))

        def rows(number: int) -> NDArray[Any]:
            where = f"rowid >= {number * step} and rowid < {(number + 1) * step}"
            found = fetch(f"select embedding from embeddings where {where} order by rowid")
            return np.stack(list(found["embedding"])).astype(table.dtype)

        table.read = block_reader(range(step, table.total_rows + step, step), rows)
        return table

    def save(self, path: Path, table: Table) -> None:
        """See `Format`."""
        import duckdb

        settings = [(name, str(value)) for name, value in table.settings.items()]
        # Without a limit DuckDB uses most of the machine's memory.
        few: Any = {"memory_limit": "512MB", "threads": 1}
        log = path.with_name(f"{path.name}.wal")
        log.unlink(missing_ok=True)  # of a killed run
        with told(duckdb.Error):
            try:
                with duckdb.connect(str(path), config=few) as file:
                    file.execute("create table hear_msm_mae (name varchar, value varchar)")
                    file.executemany(
                        "insert into hear_msm_mae values (?, ?)",
                        [*settings, ("recordings", table.to_json())],
                    )
                    for number, batch in enumerate(arrow_batches(table, plain=True)):
                        file.register("batch", batch)
                        begin = "insert into embeddings" if number else "create table embeddings as"
                        file.execute(f"{begin} select * from batch")
                    # Closing the file would write as well, but would not report a full disk.
                    file.execute("checkpoint")
            finally:
                log.unlink(missing_ok=True)
