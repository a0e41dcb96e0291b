"""Registers the models with Transformers, so that `AutoModel` takes them without remote code.

>>> import hear_msm_mae.transformers  # doctest: +SKIP
>>> transformers.AutoModel.from_pretrained("my-model")  # doctest: +SKIP
"""

from __future__ import annotations

try:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
except ImportError as error:
    raise ImportError(
        "hear_msm_mae.transformers needs the package transformers; "
        "run: pip install 'hear_msm_mae[transformers]'"
    ) from error

from .modeling_msm_mae import MsmMaeConfig, MsmMaeFeatureExtractor, MsmMaeModel, MsmMaeOutput

__all__ = ["MsmMaeConfig", "MsmMaeFeatureExtractor", "MsmMaeModel", "MsmMaeOutput"]

AutoConfig.register(MsmMaeConfig.model_type, MsmMaeConfig, exist_ok=True)
AutoFeatureExtractor.register(MsmMaeConfig, MsmMaeFeatureExtractor, exist_ok=True)
AutoModel.register(MsmMaeConfig, MsmMaeModel, exist_ok=True)
