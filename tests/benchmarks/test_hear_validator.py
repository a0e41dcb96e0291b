"""The real hear-validator 2021.0.6, as a user runs it."""

import importlib.util
import subprocess
import sys

import pytest

from hear_msm_mae.cli.common import module_command

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hearvalidator") is None,
    reason="hearvalidator is installed by `make test`, without its outdated Python bound",
)
ALWAYS_PRINTED = "IMPORTANT: A common bug"


@pytest.mark.parametrize("command", ["validator", "ours"])
def test_looks_good_without_a_warning(command):
    words = {
        "validator": module_command("hearvalidator.validate", "hear_msm_mae"),
        "ours": [sys.executable, "-m", "hear_msm_mae", "validate"],
    }[command]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "Looks good!" in result.stdout
    # The validator warns through `warnings`, each as "path:line: UserWarning: text".
    reported = [line for line in output.splitlines() if "Warning:" in line]
    assert [
        line for line in reported if "hearvalidator" in line and ALWAYS_PRINTED not in line
    ] == []
