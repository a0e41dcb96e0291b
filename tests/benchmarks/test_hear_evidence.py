"""The section of RESULTS.md, from made-up results."""

from __future__ import annotations

import pytest

from benchmarks.hear import evidence
from benchmarks.hear.kit import HearError
from benchmarks.hear.results import Result
from hear_msm_mae.checkpoints.native import bundled_weights, load_checkpoint

COSTS = [{"s": 10.0, "CPU s": 8.0, "MB": 900.0}, {"s": 20.0, "CPU s": 15.0, "MB": 1000.0}]
METRICS = {"event-v1-small": "event_onset_50ms_fms", "scene-v1-small": "top1_acc"}


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """What was asked to run; scores are 50, plus 1 per run before, but again the first ones."""
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "RESULTS.md")
    asked = []

    def run(request):
        score = 50.0 if request.runs_dir.name == "again" else 50.0 + len(asked)
        asked.append(request)
        return tmp_path, [Result(t, m, {m: score}, costs=COSTS) for t, m in METRICS.items()]

    monkeypatch.setattr(evidence, "run", run)
    return asked


def test_all_runs_stand_in_one_table(tmp_path, runs, capsys):
    runs_dir = tmp_path / "runs"
    assert evidence.evidence(tmp_path, None, runs_dir, write=True) == 0
    assert [(r.module, r.weights is not None, dict(r.options)) for r in runs] == [
        ("hear_msm_mae", False, {}),
        ("hear_msm_mae", False, {}),
        ("hear_msm_mae", True, {}),
        ("hearbaseline.naive", False, {}),
        *(("hear_msm_mae", False, {"timestamp_hop_ms": hop}) for hop in (20, 80, 160)),
    ]
    assert runs[1].runs_dir != runs[0].runs_dir  # the second run finds nothing done
    assert all(r.tasks == ("event-v1-small",) for r in runs[4:])
    text = (tmp_path / "RESULTS.md").read_text()
    assert capsys.readouterr().out.strip() in text
    rows = text.splitlines()
    assert "| scene-v1-small | top1_acc | 50.0 | 50.0 | 52.0 | 53.0 |  |  |  |" in rows
    [row] = [row for row in rows if row.startswith("| event-v1-small | event_onset_50ms_fms | 50")][
        :1
    ]
    assert row.endswith("| 50.0 | 50.0 | 52.0 | 53.0 | 54.0 | 55.0 | 56.0 |")
    assert any(row.endswith("| 10 | 8 | 900 | 20 | 15 | 1000 |") for row in rows)


def test_other_scores_in_the_second_run_fail(tmp_path, runs, monkeypatch):
    fake = evidence.run

    def run(request):
        folder, found = fake(request)
        if request.runs_dir.name == "again":
            found = [Result(r.task, r.metric, {r.metric: 50 + 1e-9}) for r in found]
        return folder, found

    monkeypatch.setattr(evidence, "run", run)
    assert evidence.evidence(tmp_path, None, tmp_path / "runs", write=False) == 1


def test_a_failed_task_writes_nothing(tmp_path, runs, monkeypatch):
    failed = Result("scene-v1-small", "top1_acc", error="broken")
    monkeypatch.setattr(evidence, "run", lambda request: (tmp_path, [failed]))
    with pytest.raises(HearError, match="scene-v1-small failed"):
        evidence.evidence(tmp_path, None, tmp_path / "runs", write=True)
    assert not (tmp_path / "RESULTS.md").exists()


def test_untrained_weights_are_the_bundled_model_without_training(tmp_path):
    path = evidence.untrained_weights(tmp_path)
    first = path.read_bytes()
    assert evidence.untrained_weights(tmp_path) == path
    assert path.read_bytes() == first
    untrained, bundled = load_checkpoint(path), load_checkpoint(bundled_weights())
    assert untrained.config == bundled.config
    name = "encoder.blocks.0.attn.qkv.weight"
    assert not untrained.tensors[name].allclose(bundled.tensors[name].float())
