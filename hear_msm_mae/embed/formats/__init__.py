"""Formats of the output; the ending of the output selects one."""

from __future__ import annotations

import os
from pathlib import Path

from ...files import printable
from ..remote import is_remote
from .arrays import Hdf5, Npz
from .common import Format
from .csv import Csv
from .duckdb import DuckDb
from .npy import NpyFolder
from .parquet import Parquet

__all__ = ["Format", "format_of"]

_FORMATS: dict[str, type[Format]] = {
    ".parquet": Parquet,
    ".npz": Npz,
    ".h5": Hdf5,
    ".hdf5": Hdf5,
    ".csv": Csv,
    ".duckdb": DuckDb,
}


def format_of(output: str | Path) -> Format:
    """The format of an output by its ending. A name without an ending is a folder of NPY files.

    Raises:
        ValueError: the ending is unknown, or the output is a URL, or a file in place of a folder.
    """
    text = os.fspath(output)
    if is_remote(text):
        raise ValueError(
            f"--output must be a local file or folder, got {printable(text)!r}; write it here and "
            "copy it"
        )
    suffix = Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or not suffix or os.path.isdir(text):
        if Path(text).is_file():
            raise ValueError(f"{printable(text)} is a file; a name without an ending is a folder")
        return NpyFolder()
    if suffix not in _FORMATS:
        raise ValueError(
            f"--output must end in one of {', '.join(_FORMATS)}, or be a folder for .npy files "
            f"(no ending, or a slash at the end), got {printable(text)!r}"
        )
    return _FORMATS[suffix]()
