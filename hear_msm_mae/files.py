"""Files: atomic replacement, Ctrl-C while writing, printable names; number of processors."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# Control characters (a terminal executes what follows ESC), characters that change the direction
# of text, line separators, invisible spaces, and bytes that are not UTF-8.
_ACTIVE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block succeeds.

    If the block fails, the temporary file is removed and the old file stays. Where `path` is a
    link, the file that it names is replaced.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays, because some writers choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)  # mkstemp makes private files; this sets the usual permissions
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay KeyboardInterrupt to the end of the block; a second Ctrl-C raises it at once.

    While a ZIP file is written, the exception would be lost (Python ignores exceptions in
    `__del__`) or become a ValueError. This does nothing outside of the main thread, which alone
    gets signals, and if the caller has installed another handler.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    came = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def printable(path: str | Path) -> str:
    """The path as printable text: bytes that are not UTF-8 become backslash escapes."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def for_terminal(line: str) -> str:
    r"""Text for a terminal: control characters and the like are escaped.

    >>> print(for_terminal("a\x1b[2Jb\u202egnp.wav"))
    a\x1b[2Jb\u202egnp.wav
    """
    return _ACTIVE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), line)


def available_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
