"""hear-eval-kit in an environment of its own: where it is and how its programs are started."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = CHECKOUT / ".venv-hear"
KIT_VERSION = "2021.1.3"


class HearError(RuntimeError):
    """Something that the user has to mend; the message says what."""


@dataclass(frozen=True)
class Cost:
    """Wall time and processor time of a program, and the largest resident size of its process."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def kit_python() -> str:
    """The interpreter that has heareval: this one, or that of `make hear-env`.

    Raises:
        HearError: there is none.
    """
    if importlib.util.find_spec("heareval") is not None:
        return sys.executable
    python = ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        raise HearError(f"hear-eval-kit is not installed: run `make hear-env` in {CHECKOUT}")
    return str(python)


def environment() -> dict[str, str]:
    """Environment of the kit's programs; modules of the current folder can be imported."""
    paths = [str(Path.cwd()), str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        # The kit reads its own checkpoints, which hold more than tensors, with torch.load.
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
    }


def run_logged(arguments: Sequence[str], log: Path, folder: Path) -> tuple[int, Cost]:
    """Run a program in `folder`; returns its exit status, negative if it was killed, and cost.

    Everything it prints goes to `log`, so `tail -f` shows how far it is.
    """
    started = time.monotonic()
    with log.open("wb") as stream:
        stream.write(f"$ {' '.join(arguments)}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            arguments, cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
            stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    cost = Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    return process.returncode, cost


def last_line(log: Path, size: int = 4096) -> str:
    """The last line with text in a log, of which progress bars are one each."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - size))
        text = stream.read().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
