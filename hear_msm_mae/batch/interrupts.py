"""Ctrl-C while a file is being written: afterwards, not in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt at the end of the block; a second one at once.

    In the middle of a ZIP file it would be lost (Python ignores what is raised in `__del__`) or
    turn into a ValueError about an open handle. Only the main thread gets signals, so elsewhere
    this does nothing, and so it does where the caller has a handler of its own.
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
