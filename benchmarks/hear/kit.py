"""hear-eval-kit in an environment of its own: where it is and how its programs are started."""

from __future__ import annotations

import importlib.util
import os
import resource
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
class Finished:
    """What a program needed."""

    status: int
    seconds: float
    cpu_seconds: float
    peak_mb: float


def kit_python(given: Path | None = None) -> Path:
    """The interpreter that has heareval: `given`, this one, or that of `make hear-env`.

    Raises:
        HearError: there is none.
    """
    if given is not None:
        if not given.is_file():
            raise HearError(f"--python {given}: no such file")
        return given
    if importlib.util.find_spec("heareval") is not None:
        return Path(sys.executable)
    python = ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        raise HearError(f"hear-eval-kit is not installed: run `make hear-env` in {CHECKOUT}")
    return python


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


def run_logged(arguments: Sequence[str], log: Path, folder: Path) -> Finished:
    """Run a program in `folder`, everything it prints goes to `log`.

    The peak is the largest resident size of the program, or of one of its children.
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
            usage = _wait(process, log, started)
        except BaseException:
            process.kill()
            process.wait()
            raise
    seconds, cpu_seconds = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    return Finished(process.returncode, seconds, cpu_seconds, usage.ru_maxrss / 1024)


def _wait(process: subprocess.Popen[bytes], log: Path, started: float) -> resource.struct_rusage:
    """What the process used, when it has ended; a terminal sees that time passes."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            if sys.stderr.isatty():
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            return usage
        if sys.stderr.isatty():
            text = f"\r\x1b[K  {time.monotonic() - started:.0f} s  {last_line(log)[:90]}"
            print(text, end="", file=sys.stderr, flush=True)
        time.sleep(0.05)


def last_line(log: Path, size: int = 4096) -> str:
    """The last line with text in a log, of which progress bars are one each."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - size))
        text = stream.read().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
