"""The representation for EVAR, over a stand-in: EVAR is not on PyPI.

The stand-in keeps a copy of the settings, as the base class of EVAR does.
"""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model


class BaseAudioRepr(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg.copy()


@pytest.fixture
def representation(monkeypatch):
    base = ModuleType("evar.ar_base")
    base.BaseAudioRepr = BaseAudioRepr
    monkeypatch.setitem(sys.modules, "evar", ModuleType("evar"))
    monkeypatch.setitem(sys.modules, "evar.ar_base", base)
    monkeypatch.delitem(sys.modules, "benchmarks.evar_model", raising=False)
    from benchmarks.evar_model import AR_HearMsmMae

    yield AR_HearMsmMae
    sys.modules.pop("benchmarks.evar_model", None)


def settings(model, file):
    return {
        "weight_file": str(file),
        "sample_rate": model.sample_rate,
        "feature_d": model.scene_embedding_size,
    }


def test_embeddings_are_those_of_the_model(representation, tiny_file):
    model = load_model(tiny_file)
    wrapped = representation(settings(model, tiny_file))
    # EVAR wraps representations before it calls them.
    parallel = nn.DataParallel(wrapped)
    audio = torch.sin(torch.arange(2 * 40_000) / 9).reshape(2, -1)
    with torch.no_grad():
        scene, frames = parallel(audio), wrapped.encode_frames(audio)
    torch.testing.assert_close(scene, get_scene_embeddings(audio, model), rtol=0, atol=1e-6)
    expected, _ = get_timestamp_embeddings(audio, model)
    torch.testing.assert_close(frames, expected.transpose(1, 2), rtol=0, atol=1e-6)


def test_gradients_reach_the_encoder(representation, tiny_file):
    wrapped = representation(settings(load_model(tiny_file), tiny_file)).train()
    wrapped(torch.sin(torch.arange(40_000) / 9)[None]).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in wrapped.parameters())


@pytest.mark.parametrize(("name", "value"), [("sample_rate", 32_000), ("feature_d", 3)])
def test_settings_of_other_weights_are_refused(representation, tiny_file, name, value):
    model = load_model(tiny_file)
    cfg = settings(model, tiny_file) | {name: value}
    right = settings(model, tiny_file)[name]
    with pytest.raises(ValueError, match=f"write `{name}: {right}`"):
        representation(cfg)
