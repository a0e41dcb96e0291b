"""This package in bacpipe, which compares embeddings of bioacoustic recordings.

    pip install bacpipe einops typer  # Python 3.11 or 3.12; bacpipe 1.3.5 pins torch 2.6
    pip install --no-deps .  # as bacpipe pins versions below the bounds of this package

    import bacpipe
    from benchmarks.bacpipe_model import MsmMae
    bacpipe.play(audio_dir="recordings", models=["msm_mae"], CustomModels=[MsmMae])

One embedding per window of 5 s. Other weights than those of the package are given in the
environment: MSM_MAE_WEIGHTS=my-model.
"""

from __future__ import annotations

import os
from typing import Any

from bacpipe.model_pipelines.model_utils import ModelBaseClass
from torch import Tensor

import hear_msm_mae

WINDOW_SECONDS = 5


class MsmMae(ModelBaseClass):
    """A custom model of bacpipe.

    Args:
        settings: what bacpipe gives to every model.
    """

    def __init__(self, **settings: Any) -> None:
        model = hear_msm_mae.load_model(os.environ.get("MSM_MAE_WEIGHTS", ""))
        rate = model.sample_rate
        super().__init__(sr=rate, segment_length=WINDOW_SECONDS * rate, **settings)
        self.model = model

    def preprocess(self, audio: Tensor) -> Tensor:
        """Windows as they are: the model computes its spectrogram by itself."""
        return audio

    def __call__(self, windows: Tensor) -> Tensor:
        """(b, n) -> (b, d) scene embeddings."""
        return hear_msm_mae.get_scene_embeddings(windows, self.model)
