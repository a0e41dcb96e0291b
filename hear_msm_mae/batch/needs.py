"""Optional packages: a clear message where one is missing."""

from __future__ import annotations

import importlib


def pyarrow() -> None:
    """Needed for Parquet."""
    _need("pyarrow.parquet", "embed", "Parquet files")


def h5py() -> None:
    """Needed for HDF5."""
    _need("h5py", "embed", "HDF5 files")


def ray() -> None:
    """Needed for clusters."""
    _need("ray.data", "ray", "clusters")


def _need(package: str, extra: str, purpose: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{purpose} need the package {package.split('.')[0]}; "
            f"run: pip install 'hear_msm_mae[{extra}]'"
        ) from error
