"""Entry point for torch.hub: `torch.hub.load("USER/REPO", "msm_mae")`."""

from typing import Any

# torch.hub checks these after it has imported this file, so the package is imported later.
dependencies = ["einops", "safetensors", "soundfile", "soxr", "torch"]


def msm_mae(weights: str = "", **options: Any) -> Any:
    """Audio embeddings from a Vision Transformer pretrained by Masked Spectrogram Modeling.

    The model maps (b, n) waveforms at 16 kHz to (b, d) scene embeddings.
    `hear_msm_mae.get_timestamp_embeddings` gives embeddings over time.

    Args:
        weights: a file, a folder or "hf://user/repo"; by default the bundled weights.
        options: options of `hear_msm_mae.load_model`.
    """
    from hear_msm_mae import load_model

    return load_model(weights, **options)
