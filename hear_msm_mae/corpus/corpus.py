"""Reading a prepared corpus of log-mel frames for training (its files: see `manifest`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .manifest import (
    MANIFEST_FILE,
    SKIPPED_FILE,
    Clip,
    check_front_end,
    check_shards,
    fingerprint,
    read_manifest,
    read_summary,
    shard_path,
    statistics,
)

logger = logging.getLogger(__name__)


class Corpus:
    """Read-only view of a prepared corpus; cheap to pickle, e.g. for the workers of a DataLoader.

    Attributes:
        folder: where it is.
        n_mels: mel bins f.
        mean, std: statistics of all values.
        hours: length of all clips.
        fingerprint: sha256 over settings and manifest; changes when the content changes.
        clip_frames: (c,) int64, frames of each clip.
        clip_sources: (c,) folder name of each clip.
    """

    def __init__(self, folder: Path, n_mels: int, clips: list[Clip]) -> None:
        self.folder = folder
        self.n_mels = n_mels
        self.mean, self.std, self.hours = statistics(clips, n_mels)
        self.fingerprint = fingerprint(clips, n_mels)
        self.clip_frames: NDArray[np.int64] = np.array([c.frames for c in clips], np.int64)
        self.clip_sources = [c.source for c in clips]
        self._offsets = np.array([c.offset for c in clips], np.int64)
        self._shards = np.array([c.shard for c in clips], np.int32)
        self._maps: dict[int, NDArray[np.float16]] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open the corpus in a folder.

        Raises:
            FileNotFoundError: there is no such folder, or no corpus in it.
            ValueError: the corpus is damaged, empty, of another release, or made with other
                front-end settings.
        """
        folder = Path(folder)
        summary = read_summary(folder)
        n_mels = check_front_end(folder, summary)
        clips = read_manifest(folder)
        if len(clips) < summary.get("clips", 0):
            raise ValueError(
                f"{folder / MANIFEST_FILE} lists {len(clips)} clips of {summary['clips']}; "
                "copy the corpus again, or run `hear-msm-mae prepare` again to repair it"
            )
        if not clips:
            raise ValueError(f"the corpus in {folder} holds no clips; see {SKIPPED_FILE} there")
        if not summary.get("complete", False):
            logger.warning(
                "the preparation of %s was interrupted; it is used as far as it got. Run "
                "`hear-msm-mae prepare` again to complete it",
                folder,
            )
        check_shards(folder, n_mels, clips)
        return cls(folder, n_mels, clips)

    def __len__(self) -> int:
        """Number of clips c."""
        return len(self.clip_frames)

    def read(self, clip: int, start: int, length: int) -> NDArray[np.float16]:
        """A crop of one clip.

        Args:
            clip: which clip, 0 <= clip < c.
            start: first frame in the clip, 10 ms each.
            length: frames; start + length must not exceed the clip.

        Returns:
            (f, length) float16, natural-log mel, not normalised; a copy.

        Raises:
            IndexError: no such clip, or the crop is not inside it.
        """
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} does not exist, the corpus has {len(self)}")
        if not 0 <= start <= start + length <= self.clip_frames[clip]:
            raise IndexError(
                f"frames {start} to {start + length} are outside clip {clip}, "
                f"which has {self.clip_frames[clip]}"
            )
        shard = int(self._shards[clip])
        if (frames := self._maps.get(shard)) is None:
            # A plain array on the map: slices of np.memmap itself cost more than the copy.
            frames = np.asarray(np.load(shard_path(self.folder, shard), mmap_mode="r"))
            self._maps[shard] = frames
        begin = int(self._offsets[clip]) + start
        return np.ascontiguousarray(frames[begin : begin + length].T)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}  # opened again where it is unpickled
