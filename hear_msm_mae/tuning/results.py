"""What fine-tuning finds."""

from __future__ import annotations

import dataclasses

from ..answers.results import ProbeResult, Score

PAGE = "finetune.html"


@dataclasses.dataclass
class FinetuneResult(ProbeResult):
    """The result of `finetune`; `scores` has the fine-tuned classifier first, then the probe.

    Attributes:
        curve: score of the validation recordings by epoch.
        best_epoch: epoch whose weights were kept; 0 means the original encoder with the probe.
        gain: score of the fine-tuned classifier minus that of the probe.
    """

    best_epoch: int = 0
    gain: Score = Score("", 0.0, 0.0, 0.0)  # noqa: RUF009  (a tuple)

    @property
    def comparison(self) -> str:
        """The gain and the best epoch in words."""
        name, value, low, high = self.gain
        return (
            f"fine-tuned - probe: {name} {value:+.3f} ({low:+.3f} to {high:+.3f}), epoch "
            f"{self.best_epoch}"
        )
