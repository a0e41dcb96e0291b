"""hear-msm-mae validate."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import typer

from .common import Weights, starting

INSTALL = (
    "pip install --no-deps --ignore-requires-python hearvalidator==2021.0.6 "
    "&& pip install tensorflow-cpu"
)


def validate(weights: Weights = "") -> None:
    """Run hear-validator on this package."""
    if importlib.util.find_spec("hearvalidator") is None:
        raise ValueError(f"hear-validator is not installed; run: {INSTALL}")
    with starting():
        from ..checkpoints.hub import find_weights

        path = str(find_weights(weights))
    command = [sys.executable, "-m", "hearvalidator.validate", "hear_msm_mae", "--model", path]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
