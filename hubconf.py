"""Entry point for torch.hub: `torch.hub.load("USER/REPO", "msm_mae")`."""

from typing import Any

# Checked by torch.hub after this file is imported, so the package is imported later.
dependencies = ["einops", "safetensors", "soundfile", "soxr", "torch"]


def msm_mae(weights: str = "", **options: Any) -> Any:
    """Audio embeddings from a Vision Transformer pretrained by Masked Spectrogram Modeling.

    Calling the model gives scene embeddings, (b, n) waveforms at 16 kHz -> (b, d);
    `hear_msm_mae.get_timestamp_embeddings` gives embeddings over time.

    Args:
        weights: a file, a folder or "hf://user/repo"; by default the weights of the package.
        options: those of `hear_msm_mae.load_model`.
    """
    from hear_msm_mae import load_model

    return load_model(weights, **options)
