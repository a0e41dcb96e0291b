"""Modules that do not follow the HEAR API are found before stage 1."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from benchmarks.hear.kit import CHECKOUT
from benchmarks.hear.module import digest

GOOD = """
import torch

class Model(torch.nn.Module):
    sample_rate = 16000
    scene_embedding_size = timestamp_embedding_size = 4

__version__ = "7"

def load_model(model_file_path="", rate=16000):
    model = Model()
    model.sample_rate = rate
    return model

def get_scene_embeddings(audio, model):
    return torch.ones(len(audio), 4)

def get_timestamp_embeddings(audio, model):
    times = torch.arange(20, 1000 * audio.shape[1] / model.sample_rate, 40)
    return torch.ones(len(audio), len(times), 4), times.expand(len(audio), -1)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hearvalidator") is None, reason="hear-validator is not installed"
)
def test_the_validator_tries_the_module_with_its_options(tmp_path):
    """In one process, because every one imports TensorFlow."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(GOOD.replace("torch.ones(len(audio), 4)", "torch.ones(9, 4)"))
    code = (
        "from benchmarks.hear.module import validated; import json\n"
        "print('report', json.dumps(validated('good', None, {'rate': 32000})))\n"
        "validated('bad', None, {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    [line] = [line for line in done.stdout.splitlines() if line.startswith("report ")]
    report = json.loads(line.removeprefix("report "))
    assert report["sample_rate"] == 32_000
    assert report["version"] == "7"
    assert done.returncode == 1
    assert "ModelError: Passed in a batch of 4 audio samples, but your model" in done.stderr


def test_other_parameters_have_another_digest():
    model = torch.nn.Linear(2, 2)
    before = digest(model)
    assert digest(model) == before
    torch.nn.init.constant_(model.bias, 9)
    assert digest(model) != before
