"""The runtime that speed is compared with: timm's blocks and torchaudio's log-mel."""

import pytest
import torch
from small_models import SIZES, small_model

from hear_msm_mae.config import ModelConfig


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize("layer", ["last", [0, 1]])
def test_peers_runtime_gives_the_same_scenes(cls_token, layer):
    """Two independent ways to the same numbers: a clip of whole patches, two units and a rest."""
    pytest.importorskip("timm")
    from benchmarks.plain import PlainPath

    config = ModelConfig(**SIZES, cls_token=cls_token)
    model = small_model(config, layer=layer, scene_pooling="mean")
    for name, parameter in model.encoder.named_parameters():
        if name.endswith(("bias", "norm1.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
    audio = 0.1 * torch.randn(2, 527 * 160)  # 528 frames
    with torch.no_grad():
        torch.testing.assert_close(
            PlainPath(model).scene(audio), model(audio), atol=1e-3, rtol=1e-3
        )
