"""How commands of `hear-msm-mae` refuse."""

from __future__ import annotations

import re

from conftest import Result


def assert_one_line_error(result: Result, message: str) -> None:
    assert result.status == 2
    assert result.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.err), result.err
    assert re.search(message, result.err), result.err
