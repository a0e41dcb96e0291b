"""Audio embeddings from a Vision Transformer pretrained by Masked Spectrogram Modeling.

The three functions of the HEAR 2021 common API:

>>> import hear_msm_mae, torch
>>> model = hear_msm_mae.load_model()
>>> audio = torch.zeros(1, 16000)  # (b, n) at 16 kHz
>>> scene = hear_msm_mae.get_scene_embeddings(audio, model)  # (b, d)
>>> frames, timestamps = hear_msm_mae.get_timestamp_embeddings(audio, model)  # (b, t, d), (b, t)
"""

from .api import get_scene_embeddings, get_timestamp_embeddings, load_model
from .embed.records import embed_files

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "embed_files",
    "get_scene_embeddings",
    "get_timestamp_embeddings",
    "load_model",
]
