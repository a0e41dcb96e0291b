"""Mix several channels to one, or choose one of them."""

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
    """The number of a channel, from 0; None for the mean of all channels.

    Raises:
        ValueError: it is not "mix", "left", "right" or a number from 0.

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
    """Mixes blocks to one channel, and notices whether the channels cancel each other.

    Args:
        name: name of the recording, for messages.
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
            ValueError: the channel does not exist, or a sample is NaN or infinite.
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
            # Adding columns is much faster than block.mean(1), and uses no BLAS threads.
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
        """Whether the channels were loud, but their mean was nearly silent."""
        loud = self._power > _AUDIBLE * self._values
        return loud and self._mixed_power < _CANCELLED * self._power


def warn_of_cancellation(name: str) -> None:
    """Warn that the channels of a recording cancel each other, and say what to do."""
    _log.warning(
        "%s: its channels cancel each other (opposite phase), so their mean is nearly silent; "
        "choose one of them with --channel left or channel='left'",
        name,
    )
