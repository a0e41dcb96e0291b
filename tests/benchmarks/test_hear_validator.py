"""The real hear-validator 2021.0.6, typed as its README says."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hearvalidator") is None,
    reason="hearvalidator is installed by `make test`, without its outdated Python bound",
)
ALWAYS_PRINTED = "IMPORTANT: A common bug"


# Our command runs the same program; each run imports TensorFlow.
@pytest.mark.parametrize(
    "command",
    [
        "hear-validator hear_msm_mae -d cpu",
        pytest.param("hear-msm-mae validate", marks=pytest.mark.slow),
    ],
)
def test_the_validator_finds_it_good_without_a_warning(command):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command.split(),
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "Looks good!" in result.stdout
    # The validator warns through `warnings`, each as "path:line: UserWarning: text".
    reported = [line for line in output.splitlines() if "Warning:" in line]
    assert [
        line for line in reported if "hearvalidator" in line and ALWAYS_PRINTED not in line
    ] == []
