"""This package in EVAR, which compares audio representations by linear evaluation and fine-tuning.

In a clone of EVAR (nttcslab/eval-audio-repr), in an environment that has this package too:

    cp .../benchmarks/evar_model.py evar/ar_hear_msm_mae.py
    echo "import evar.ar_hear_msm_mae" >> evar/ar_spec.py
    cat > config/hear_msm_mae.yaml << END
    audio_repr: ar_hear_msm_mae.AR_HearMsmMae
    sample_rate: 16000
    feature_d: 3840
    batch_size: 64
    lr_lineareval: 0.0003
    report_per_epochs: 20
    early_stop_epochs: 20
    weight_file: ""  # or what hear_msm_mae.load_model reads
    END
    python lineareval.py config/hear_msm_mae.yaml us8k

EVAR is not on PyPI. The tests use a stand-in for its file evar/ar_base.py.
"""

from __future__ import annotations

from typing import Any

from evar.ar_base import BaseAudioRepr
from torch import Tensor

import hear_msm_mae


class AR_HearMsmMae(BaseAudioRepr):
    """A representation of EVAR: waveforms (b, n) in, embeddings (b, d) out.

    Args:
        cfg: settings of the YAML file; `feature_d` and `sample_rate` must be those of the weights.

    Raises:
        ValueError: they are not.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg=cfg)
        self.backbone = hear_msm_mae.load_model(self.cfg.get("weight_file") or "")
        sizes = (self.backbone.sample_rate, self.backbone.scene_embedding_size)
        for name, size in zip(("sample_rate", "feature_d"), sizes, strict=True):
            if self.cfg[name] != size:
                raise ValueError(
                    f"{name} is {self.cfg[name]}, and {size} in the weights: write `{name}: {size}`"
                )

    def encode_frames(self, batch_audio: Tensor) -> Tensor:
        """(b, n) -> (b, d, t) frame embeddings."""
        return self.backbone.timestamp_embeddings(batch_audio)[0].transpose(1, 2)

    def forward(self, batch_audio: Tensor) -> Tensor:
        """(b, n) -> (b, d) scene embeddings."""
        return self.backbone(batch_audio)
