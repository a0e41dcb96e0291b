"""Modules that do not follow the HEAR API are found before stage 1."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks.hear import probe

GOOD = """
import torch

class Model(torch.nn.Module):
    sample_rate = 16000
    scene_embedding_size = 4
    timestamp_embedding_size = 4

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

def load_model(model_file_path="", gain=1.0):
    return Model(gain)

def get_scene_embeddings(audio, model):
    return model.gain * torch.ones(len(audio), 4)

def get_timestamp_embeddings(audio, model):
    return torch.ones(len(audio), 10, 4), 100.0 * torch.arange(10).expand(len(audio), 10)
"""


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """Function that writes a module and probes it; returns (exit status, report)."""
    monkeypatch.syspath_prepend(tmp_path)

    def probed(text, *arguments):
        monkeypatch.delitem(sys.modules, "foreign", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (tmp_path / "foreign.py").write_text(text)
        report = tmp_path / "report.json"
        monkeypatch.setattr(sys, "argv", ["probe", str(report), "foreign", *arguments])
        return probe.main(), json.loads(report.read_text())

    return probed


def test_good_module(probed):
    status, report = probed(GOOD)
    assert status == 0
    assert report["sample_rate"] == 16_000
    assert report["hop_ms"] == 100
    _, again = probed(GOOD)
    assert again == report
    _, other = probed(GOOD, "--model-options", '{"gain": 2.0}')
    assert other["model_digest"] != report["model_digest"]


def test_this_package(probed):
    status, report = probed("from hear_msm_mae import *\nfrom hear_msm_mae import __version__")
    assert status == 0
    assert report["hop_ms"] == 40


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import torch", "import torch, nothing_like_this", "foreign cannot be imported: Module"),
        ("def load_model", "def load", "foreign has no function load_model"),
        ("def get_scene", "def scene", "foreign has no function get_scene_embeddings"),
        ("return Model(gain)", "return 1 / 0", "foreign.load_model fails: ZeroDivisionError"),
        ("sample_rate = 16000", "sample_rate = 8000", "foreign.load_model: sample_rate is 8000"),
        ("scene_embedding_size = 4", "scene_embedding_size = 4.0",
         "scene_embedding_size must be an int, got 4.0"),
        ("torch.ones(len(audio), 4)", "torch.ones(len(audio), 5)",
         "foreign.get_scene_embeddings: embeddings of shape (2, 5), expected (2, 4)"),
        ("torch.ones(len(audio), 4)", "torch.ones(len(audio), 4).double()",
         "foreign.get_scene_embeddings: embeddings are float64, expected float32"),
        ("torch.ones(len(audio), 4)", "torch.full((len(audio), 4), float('nan'))",
         "foreign.get_scene_embeddings: 8 of 8 values are NaN or infinite"),
        ("torch.ones(len(audio), 10, 4)", "torch.ones(len(audio), 10, 4) / 0",
         "foreign.get_timestamp_embeddings: 80 of 80 values are NaN or infinite"),
        ("torch.ones(len(audio), 10, 4), ", "", "must return (embeddings, timestamps)"),
        ("expand(len(audio), 10)", "view(10)", "timestamps must be finite and of shape (2, 10)"),
    ],
)  # fmt: skip
def test_bad_module_is_named_with_its_function(probed, old, new, message):
    status, report = probed(GOOD.replace(old, new))
    assert status == 1
    assert message in report["error"]
    assert report["error"].startswith("foreign")
