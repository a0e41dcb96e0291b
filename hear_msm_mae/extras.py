"""Optional packages: one clear message where one is missing."""

from __future__ import annotations

import importlib


def need(package: str, extra: str, purpose: str) -> None:
    """Check that an optional package can be imported.

    Args:
        package: its import name.
        extra: the extra of this package that installs it.
        purpose: what needs it, in the plural, for the message.

    Raises:
        ValueError: it is missing; the message says what to install.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{purpose} need the package {package.split('.')[0]}; "
            f"run: pip install 'hear_msm_mae[{extra}]'"
        ) from error
