"""The model for MTEB: its contract, and MTEB's mock tasks, which need no network."""

import numpy as np
import offline  # noqa: F401
import pytest
import torch

from hear_msm_mae import get_scene_embeddings, load_model

mteb = pytest.importorskip("mteb", reason="pip install mteb")
from benchmarks.mteb_model import MtebModel, main  # noqa: E402


def test_embeddings_of_batches(tiny_file):
    model = MtebModel(weights=str(tiny_file), scene_pooling="mean+std")
    generator = np.random.default_rng(0)
    clips = [np.float32(0.1 * generator.standard_normal(n)) for n in (16_000, 500, 40_000)]
    items = [{"array": clip, "sampling_rate": 16_000} for clip in clips]
    found = model.encode([{"audio": items[:2]}, {"audio": items[2:]}], task_metadata=None)
    ours = load_model(tiny_file, scene_pooling="mean+std")
    expected = torch.cat([get_scene_embeddings(clip[None], ours) for clip in clips])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert found.dtype == np.float32
    assert model.mteb_model_meta.embed_dim == found.shape[1]
    assert model.mteb_model_meta.modalities == ["audio"]
    with pytest.raises(ValueError, match=r"expected batches with audio, got \['text'\]"):
        model.encode([{"text": ["words"]}])


def test_mock_run(tiny_file, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--mock", "--weights", str(tiny_file)])
    assert end.value.code == 0, capsys.readouterr().out
    table = capsys.readouterr().out
    assert table.count("| audio | ✓ |") >= 7
    assert "✗" not in table


def test_the_benchmark_that_is_run_by_default():
    from benchmarks.mteb_model import BENCHMARK

    tasks = mteb.get_benchmark(BENCHMARK).tasks
    assert len(tasks) >= 10
    assert all(task.metadata.modalities == ["audio"] for task in tasks)
