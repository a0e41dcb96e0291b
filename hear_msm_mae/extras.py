"""Check that optional packages are installed, with one message for all."""

from __future__ import annotations

import importlib


def need(package: str, extra: str, purpose: str) -> None:
    """Check that an optional package can be imported.

    Args:
        package: import name of the package.
        extra: the extra of hear_msm_mae that installs it.
        purpose: the feature that needs it, in the plural, for the message.

    Raises:
        ValueError: the package is missing; the message says what to install.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{purpose} need the package {package.split('.')[0]}; "
            f"run: pip install 'hear_msm_mae[{extra}]'"
        ) from error
