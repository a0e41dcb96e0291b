"""Several channels -> one: their mean, or one of them."""

from __future__ import annotations

import functools
import logging

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

# The mean of the channels counts as cancelled below this part of their power (-40 dB) ...
_CANCELLED = 1e-4
# ... where they are louder than this (-60 dBFS).
_AUDIBLE = 1e-6


def channel_index(channel: str | int) -> int | None:
    """Number of a channel, from 0 on; None: the mean of all.

    Raises:
        ValueError: something else than "mix", "left", "right" or a number from 0 on.

    >>> channel_index("right"), channel_index("3"), channel_index("mix")
    (1, 3, None)
    """
    if isinstance(channel, str):
        named = {"mix": None, "left": 0, "right": 1}
        if channel in named:
            return named[channel]
        if channel.isascii() and channel.isdigit():
            return int(channel)
    elif not isinstance(channel, bool) and channel >= 0:
        return channel
    raise ValueError(f'channel must be "mix", "left", "right" or 0, 1, 2 ..., got {channel!r}')


class Mixer:
    """Makes one channel of blocks with several; notices whether they cancel each other.

    Args:
        name: of the recording, for messages.
        channel: as for `channel_index`.

    >>> Mixer("a", "mix")(np.float32([[1, 3], [2, 2]])).tolist()
    [2.0, 2.0]
    """

    def __init__(self, name: str, channel: str | int = "mix") -> None:
        self._name = name
        self._index = channel_index(channel)
        self._power = self._mixed_power = 0.0  # sums of squares per channel and of the mean
        self._values = 0

    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Blocks (n, channels) become (n,).

        Raises:
            ValueError: there is no such channel, or NaN or infinity.
        """
        channels = block.shape[1]
        if self._index is not None and self._index >= channels:
            raise ValueError(
                f"{self._name}: there is no channel {self._index}; it has {channels}, "
                "which are counted from 0"
            )
        if self._index is not None:
            mono = np.ascontiguousarray(block[:, self._index])
        elif channels == 1:
            mono = block[:, 0]
        else:
            # Column by column: much faster than block.mean(1), and without BLAS threads.
            mono = functools.reduce(np.add, block.T) / np.float32(channels)
        if not np.isfinite(mono).all():
            raise ValueError(f"{self._name}: holds NaN or infinite samples")
        if self._index is None and channels > 1:
            self._power += float(np.vdot(block, block)) / channels
            self._mixed_power += float(np.vdot(mono, mono))
            self._values += len(mono)
        return mono

    @property
    def cancelled(self) -> bool:
        """Whether the channels were loud and their mean was not."""
        loud = self._power > _AUDIBLE * self._values
        return loud and self._mixed_power < _CANCELLED * self._power


def warn_of_cancellation(name: str) -> None:
    """Say that a recording's channels cancel each other, and what to do."""
    _log.warning(
        "%s: its channels cancel each other (opposite phase), so that their mean is nearly "
        "silent; choose one of them: --channel left, channel='left'",
        name,
    )
