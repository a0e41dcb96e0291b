"""The bank of frames: a prepared corpus as one array, read by index on any device."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch
from torch import Tensor

from ..config import MS_PER_FRAME, SAMPLE_RATE
from ..log_mel import SILENCE
from .index import (
    FRAMES_FILE,
    SKIPPED_FILE,
    damaged_ranges,
    fingerprint,
    read_manifest,
    read_summary,
    statistics,
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Bank:
    """All clips of a corpus in one array.

    Attributes:
        frames: (n, f) float16 log-mel, not normalised; memory-mapped after `open`.
        starts: (c,) int64 index of each clip's first frame.
        lengths: (c,) int64 number of frames of each clip, 10 ms each.
        sources: (c,) source folder of each clip.
        mean, std: mean and standard deviation of all values.
        fingerprint: SHA-256 of settings and clips.
        sample_rate: sample rate of the audio in Hz.
    """

    frames: Tensor
    starts: Tensor
    lengths: Tensor
    sources: list[str]
    mean: float
    std: float
    fingerprint: str
    sample_rate: int = SAMPLE_RATE

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> Bank:
        """Open the corpus in a folder.

        Args:
            folder: written by `prepare`.
            verify: compare the digests of all frames, which reads the array once.

        Raises:
            FileNotFoundError: the folder does not exist, or has no corpus.
            ValueError: the corpus is damaged or empty, or was made by another release or with
                other front-end settings.
        """
        folder = Path(folder)
        summary = read_summary(folder)
        front_end, frames = summary["front_end"], int(summary["frames"])
        n_mels = int(front_end["n_mels"])
        clips = sorted(read_manifest(folder, summary))  # independent of the array
        if not clips:
            raise ValueError(f"the corpus in {folder} holds no clips; see {SKIPPED_FILE} there")
        if not summary.get("complete", False):
            logger.warning(
                "the preparation of %s was interrupted; the finished part is used. Run "
                "`hear-msm-mae prepare` again to complete it",
                folder,
            )
        path = folder / FRAMES_FILE
        size = path.stat().st_size if path.exists() else 0
        if size < 2 * n_mels * frames or (verify and damaged_ranges(folder, summary)):
            raise ValueError(
                f"{path} is missing or damaged: its frames differ from their SHA-256. Run "
                "the same `hear-msm-mae prepare` again to repair it, or copy the corpus again"
            )
        array = torch.from_file(str(path), False, frames * n_mels, dtype=torch.float16)
        mean, std, _ = statistics(clips, n_mels)
        return cls(
            array.view(frames, n_mels),
            torch.tensor([c.offset for c in clips]),
            torch.tensor([c.frames for c in clips]),
            [c.source for c in clips],
            mean,
            std,
            fingerprint(clips, front_end),
            int(front_end["sample_rate"]),
        )

    def __len__(self) -> int:
        """Number of clips c."""
        return len(self.lengths)

    @property
    def n_mels(self) -> int:
        """Mel bins f."""
        return self.frames.shape[1]

    @property
    def hours(self) -> float:
        """Length of all clips in hours."""
        return int(self.lengths.sum()) * MS_PER_FRAME / 3.6e6

    @property
    def device(self) -> torch.device:
        """Device of the frames."""
        return self.frames.device

    def to(self, device: torch.device) -> Bank:
        """A copy of the bank on a device."""
        frames, starts, lengths = (x.to(device) for x in (self.frames, self.starts, self.lengths))
        return dataclasses.replace(self, frames=frames, starts=starts, lengths=lengths)

    def crops(self, clips: Tensor, first: Tensor, length: int, pin: bool = False) -> Tensor:
        """Crops of equal length; frames outside of a clip are silence.

        Args:
            clips: (b,) int64 numbers of the clips.
            first: (b,) int64 first frame of each crop in its clip; may be negative.
            length: number of frames t of each crop.
            pin: return page-locked memory, for asynchronous copies to a GPU.

        Returns:
            (b, t, f) float16, a copy, on the device of the bank.
        """
        place = first[:, None] + torch.arange(length, device=first.device)  # (b, t), in the clip
        inside = (place >= 0) & (place < self.lengths[clips][:, None])
        index = (place + self.starts[clips][:, None]).clamp_(0, len(self.frames) - 1)
        shape = (*index.shape, self.n_mels)
        out = torch.empty(shape, dtype=self.frames.dtype, device=self.device, pin_memory=pin)
        torch.index_select(self.frames, 0, index.flatten(), out=out.view(-1, self.n_mels))
        if self.device.type == "cpu" and inside.all():  # too slow on a GPU
            return out
        return out.masked_fill_(~inside[..., None], SILENCE)
