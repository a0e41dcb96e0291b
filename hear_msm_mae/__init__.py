"""Audio embeddings from a Vision Transformer pretrained by Masked Spectrogram Modeling.

The three functions of the HEAR 2021 common API:

>>> import hear_msm_mae, torch
>>> model = hear_msm_mae.load_model()
>>> audio = torch.zeros(1, 16000)  # (b, n) at 16 kHz
>>> scene = hear_msm_mae.get_scene_embeddings(audio, model)  # (b, d)
>>> frames, timestamps = hear_msm_mae.get_timestamp_embeddings(audio, model)  # (b, t, d), (b, t)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "duplicates",
    "embed_files",
    "finetune",
    "get_scene_embeddings",
    "get_timestamp_embeddings",
    "index",
    "load_model",
    "predict",
    "probe",
    "search",
]

if TYPE_CHECKING:
    from .answers.index import index
    from .answers.predict import predict
    from .answers.probe import probe
    from .answers.search import duplicates, search
    from .api import get_scene_embeddings, get_timestamp_embeddings, load_model
    from .embed.records import embed_files
    from .tuning.finetune import finetune
else:
    # Each function is imported when it is first used, because torch takes seconds (PEP 562).
    _MODULES = {
        "duplicates": "answers.search",
        "embed_files": "embed.records",
        "finetune": "tuning.finetune",
        "get_scene_embeddings": "api",
        "get_timestamp_embeddings": "api",
        "index": "answers.index",
        "load_model": "api",
        "predict": "answers.predict",
        "probe": "answers.probe",
        "search": "answers.search",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value  # the next access does not call this function
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
