"""`python -m benchmarks.endurance --quick` finds nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.endurance", "--quick"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.split("|---|")[-1].splitlines()]
    table = {row[0]: row for row in rows if len(row) > 5}
    assert len(table) == 9
    for name, tried, handled, lost, *_ in table.values():
        assert tried == handled != "0", name
        assert lost == "0", name
