"""Progress bar: files, hours of audio, times real time, time to go."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

from .pieces import Result
from .sources import Failure, Recording


class Progress:
    """A bar on the standard error stream, if that is a terminal.

    Args:
        total: number of recordings of the run.
        earlier: number of them that earlier runs embedded.
        sample_rate: sample rate of the waveforms in Hz.

    Attributes:
        done: number of recordings that this run has completed.
        seconds: seconds of audio that this run has embedded.
    """

    def __init__(self, total: int, earlier: int, sample_rate: int) -> None:
        self.done, self.seconds = 0, 0.0
        self._rate = sample_rate
        self._positions: dict[Any, float] = {}  # seconds, by the key of each open recording
        self._begin = time.monotonic()
        self._bar = tqdm(total=total, initial=earlier, desc="embed", unit=" files", disable=None)

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.seconds / max(1e-9, time.monotonic() - self._begin)

    def update(self, event: Result | tuple[Recording, Failure]) -> None:
        """Count a result or failure."""
        key, ends = event[0].key, True
        since = self._positions.pop(key, None)
        if isinstance(event, Result):
            place, ends = event.place, event.place.last
            if since is None:  # the part that an earlier run embedded is not counted
                since = place.position if place.number else place.start / self._rate
            self.seconds += max(0.0, place.position - since)
            self.done += ends
            if not ends:
                self._positions[key] = place.position
        self._bar.set_postfix_str(
            f"{self.seconds / 3600:.2f} h, {self.speed:.0f} x real time", refresh=False
        )
        self._bar.update(int(ends))

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
