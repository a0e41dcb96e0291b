"""SIGTERM and Ctrl-C during training: the current step is completed, then the run ends."""

from __future__ import annotations

import contextlib
import signal
import time
from types import FrameType
from typing import Any

SECOND_CTRL_C_SECONDS = 1.0


class Signals:
    """Remembers the first signal in the block, which then does not end the process.

    Attributes:
        number: number of the signal; None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._came = 0.0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        with contextlib.suppress(ValueError):  # only the main thread gets signals
            for number in (int(signal.SIGTERM), int(signal.SIGINT)):
                self._old[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._came = number, time.monotonic()
        # Schedulers and torchrun may send a signal twice. Only a second Ctrl-C ends the process.
        elif number == signal.SIGINT and time.monotonic() - self._came > SECOND_CTRL_C_SECONDS:
            raise KeyboardInterrupt
