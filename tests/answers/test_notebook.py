"""The notebook's cells run in order, in a folder with the example recordings."""

from __future__ import annotations

import json
from pathlib import Path

import forked

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_notebook(tmp_path):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    cells = json.loads((EXAMPLES / "answers.ipynb").read_text())["cells"]
    code = "\n".join("".join(x["source"]) for x in cells if x["cell_type"] == "code")
    result = forked.run(forked.code, code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "linear probe" in result.stdout
    assert "Confusions" in (tmp_path / "probe" / "probe.html").read_text("utf-8")
