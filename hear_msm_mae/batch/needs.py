"""Optional packages: a clear message where one is missing."""

from __future__ import annotations

import importlib.util


def pyarrow() -> None:
    """Needed for Parquet."""
    _need("pyarrow", "embed", "Parquet files")


def h5py() -> None:
    """Needed for HDF5."""
    _need("h5py", "embed", "HDF5 files")


def ray() -> None:
    """Needed for clusters."""
    _need("ray", "ray", "--ray")
    _need("pyarrow", "ray", "--ray")


def _need(package: str, extra: str, purpose: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{purpose} need the package {package}; run: pip install 'hear_msm_mae[{extra}]'"
        )
