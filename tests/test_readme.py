"""The README's code blocks run, in a folder with the example recordings."""

import re
import shlex
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(m[1], m[2]) for m in BLOCK.finditer((ROOT / "README.md").read_text())]
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line
    for language, code in BLOCKS
    if language == "bash"
    for line in code.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
# These install this package, or run this very suite.
NOT_HERE = ("make ", "git ", "cd ", "pip ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Commands build on one another, so they share a folder."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_there_is_something_to_run():
    assert PYTHON
    assert any(line.startswith("hear-msm-mae embed") for line in COMMANDS)
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS


@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks(code, folder):
    result = forked.run(forked.code, code, cwd=folder)
    assert result.returncode == 0, result.stderr


def test_commands_in_order(folder):
    for line in COMMANDS:
        if line.startswith(NOT_HERE):
            continue
        words = shlex.split(line, comments=True)
        if words[1] == "pretrain":
            words.append("steps=4")  # of 100; the tests of pretraining train for longer
        assert words[0] == "hear-msm-mae", f"the README names a command nobody tests: {line}"
        result = forked.run(forked.hear_msm_mae, words[1:], cwd=folder)
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
