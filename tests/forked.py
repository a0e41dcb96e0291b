"""Commands in new processes that start at once: forks of a process that has imported the package.

A new interpreter needs seconds to import torch. Python's fork server does so once, in a
process that has computed nothing and has no threads, so that its forks behave like new processes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")
# Lightning takes longer to import than torch.
_CONTEXT.set_forkserver_preload(
    ["hear_msm_mae.cli", "hear_msm_mae.api", "hear_msm_mae.pretrain.train"]
)


class Result(NamedTuple):
    """What a process did; negative codes are signals, as in `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def start(
    work: Callable[..., object], *arguments: object, cwd: Path, out: Path, err: Path
) -> BaseProcess:
    """Call a function of a module in a process that leads a new session."""
    process = _CONTEXT.Process(target=_child, args=(work, arguments, cwd, out, err))
    process.start()
    return process


def run(work: Callable[..., object], *arguments: object, cwd: Path) -> Result:
    """Call a function of a module in a process, and wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(work, *arguments, cwd=cwd, out=out, err=err)
        process.join()
        assert process.exitcode is not None
        return Result(process.exitcode, out.read_text(), err.read_text())


def hear_msm_mae(words: Sequence[object]) -> None:
    """For `start` and `run`: the command line with these arguments."""
    from hear_msm_mae import cli

    sys.argv = ["hear-msm-mae", *map(str, words)]
    cli.main()


def code(text: str, arguments: Sequence[object] = (), env: dict[str, str] | None = None) -> None:
    """For `start` and `run`: a program in a string."""
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    sys.argv = ["-c", *map(str, arguments)]
    exec(compile(text, "<code>", "exec"), {"__name__": "__main__"})


def _child(
    work: Callable[..., object], arguments: tuple[object, ...], cwd: Path, out: Path, err: Path
) -> None:
    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(cwd)
    work(*arguments)
