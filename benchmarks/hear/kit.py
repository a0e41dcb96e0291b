"""How the programs of hear-eval-kit are started, and what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
KIT_VERSION = "2021.1.3"
PYTHON = sys.executable  # of the environment that `make hear-env` makes

Cost = dict[str, float]
"""Wall time "s", processor time "CPU s", and peak memory "MB" of a program."""


class HearError(RuntimeError):
    """The user has to change something; the message says what."""


def run_logged(arguments: Sequence[str], log: Path, folder: Path) -> tuple[int, Cost]:
    """Run Python in `folder`; `log` gets what it prints, so `tail -f` shows how far it is.

    Returns:
        exit status, negative if the program was killed by a signal, and cost.
    """
    # Modules of the current folder can be imported.
    paths = [str(Path.cwd()), str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        # The kit's checkpoints hold more than tensors, which torch.load otherwise refuses.
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
    }
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [PYTHON, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, {
        "s": time.monotonic() - started,
        "CPU s": usage.ru_utime + usage.ru_stime,
        "MB": usage.ru_maxrss / 1024,
    }


def last_line(log: Path) -> str:
    """The last line with text in a log; a progress bar ends its lines with carriage returns."""
    lines = log.read_text(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
