"""Progress bar: files, hours of audio, times real time, time to go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .pieces import Result
from .remote import is_remote
from .sources import Failure, Recording

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {postfix}[{elapsed} < {remaining}]"
# A guess that moves the bar within a long file. The end of the file corrects it.
_BYTES_PER_SECOND = 32_000


class Progress:
    """A bar on the standard error stream, if that is a terminal.

    The length of the bar is the size of all files in bytes, because opening every file would take
    long. If recordings have a start and an end, it is their length in seconds.

    Args:
        recordings: the recordings that this run embeds.
        sample_rate: sample rate of the waveforms in Hz.
        earlier: number of recordings that earlier runs embedded.

    Attributes:
        done: number of recordings that this run has completed.
        seconds: seconds of audio that this run has embedded.
    """

    def __init__(self, recordings: Sequence[Recording], sample_rate: int, earlier: int = 0) -> None:
        self.done, self.seconds = 0, 0.0
        self._rate = sample_rate
        self._earlier, self._total = earlier, earlier + len(recordings)
        self._failed = 0
        self._stretches = any(recording.end is not None for recording in recordings)
        self._finished = 0.0  # weight of the complete recordings
        self._positions: dict[Any, float] = {}  # seconds, by the key of each open recording
        self._begin = time.monotonic()
        total = sum(map(self._weight, recordings))
        self._bar = tqdm(total=total, desc="embed", bar_format=_FORMAT, disable=None)
        self._show(0.0)

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.seconds / max(1e-9, time.monotonic() - self._begin)

    def update(self, event: Result | tuple[Recording, Failure]) -> None:
        """Move the bar by one result or failure."""
        recording = event[0]
        weight = self._weight(recording)
        if not isinstance(event, Result):
            self._failed += 1
            self._finished += weight
            self._positions.pop(recording.key, None)
            self._show(0.0)
            return
        place = event.place
        # The part of this recording that an earlier run embedded is not counted.
        begin = place.position if place.number else place.start / self._rate
        since = self._positions.pop(recording.key, begin)
        self.seconds += max(0.0, place.position - since)
        if place.last:
            self.done += 1
            self._finished += weight
            self._show(0.0)
        else:
            self._positions[recording.key] = place.position
            read = place.position - recording.start
            self._show(min(weight, read if self._stretches else read * _BYTES_PER_SECOND))

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show(self, share: float) -> None:
        files = self._earlier + self.done + self._failed
        self._bar.set_postfix_str(
            f"{files}/{self._total} files, {self.seconds / 3600:.2f} h, "
            f"{self.speed:.0f} x real time ",
            refresh=False,
        )
        self._bar.update(self._finished + share - self._bar.n)

    def _weight(self, recording: Recording) -> float:
        if self._stretches:
            return 60.0 if recording.end is None else recording.end - recording.start
        if recording.item is not None or is_remote(recording.path):
            return 1.0
        try:
            return float(Path(recording.path).stat().st_size)
        except OSError:
            return 0.0
