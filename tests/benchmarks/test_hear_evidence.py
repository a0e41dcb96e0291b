"""The section of RESULTS.md, from made-up results."""

from __future__ import annotations

import pytest
from hear_tasks import make_task

from benchmarks.hear import evidence
from benchmarks.hear.__main__ import main
from benchmarks.hear.kit import Cost, HearError
from benchmarks.hear.results import Result
from hear_msm_mae import load_model
from hear_msm_mae.checkpoints.native import bundled_weights, load_checkpoint

COSTS = (Cost(10.0, 8.0, 900.0), Cost(20.0, 15.0, 1000.0))


@pytest.fixture
def tasks_dir(tmp_path):
    make_task(tmp_path / "tasks", "scene-v1-small")
    make_task(tmp_path / "tasks", "event-v1-small", event=True)
    return tmp_path / "tasks"


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """What was asked to run; scores are 50, plus 1 per run before, but again the first ones."""
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "RESULTS.md")
    asked = []

    def run(request):
        score = 50.0 if request.runs_dir.name == "again" else 50.0 + len(asked)
        asked.append(request)
        found = [
            Result("event-v1-small", None, "event_onset_50ms_fms", score, costs=COSTS,
                   scores={"event_onset_50ms_fms": score}),
            Result("scene-v1-small", None, "top1_acc", score, 3.0, costs=COSTS,
                   scores={"top1_acc": score}),
        ]  # fmt: skip
        return tmp_path, found

    monkeypatch.setattr(evidence, "run", run)
    return asked


def test_what_is_run_and_written(tasks_dir, tmp_path, runs, capsys):
    runs_dir = tmp_path / "runs"
    arguments = ["--tasks-dir", str(tasks_dir), "--runs-dir", str(runs_dir), "--write"]
    assert main(["evidence", *arguments]) == 0
    assert [(r.module, r.weights is not None, dict(r.options)) for r in runs] == [
        ("hear_msm_mae", False, {}),
        ("hear_msm_mae", True, {}),
        ("hearbaseline.naive", False, {}),
        ("hear_msm_mae", False, {}),
        *(("hear_msm_mae", False, {"timestamp_hop_ms": hop}) for hop in (20, 80, 160)),
    ]
    assert runs[3].runs_dir != runs[0].runs_dir  # the second run finds nothing done
    assert all(r.tasks == ("event-v1-small",) for r in runs[4:])
    text = (tmp_path / "RESULTS.md").read_text()
    assert capsys.readouterr().out.strip() in text
    rows = text.splitlines()
    assert (
        "| scene-v1-small | 2 | 0.1 | top1_acc | 50.0 ± 3.0 | 51.0 ± 3.0 | **52.0** ± 3.0 |" in rows
    )
    assert "| event-v1-small | event_onset_50ms_fms | 54.0 | 50.0 | 55.0 | 56.0 |" in rows
    assert "| event-v1-small | 10 | 8 | 900 | 20 | 15 | 1000 |" in rows
    assert "exactly the same scores" in text


def test_other_scores_in_the_second_run_are_said_and_fail(tasks_dir, tmp_path, runs, monkeypatch):
    fake = evidence.run

    def run(request):
        folder, found = fake(request)
        if request.runs_dir.name == "again":
            found = [
                Result(r.task, None, r.metric, r.score, scores={r.metric: 50 + 1e-9}) for r in found
            ]
        return folder, found

    monkeypatch.setattr(evidence, "run", run)
    arguments = ["--tasks-dir", str(tasks_dir), "--runs-dir", str(tmp_path / "runs"), "--write"]
    assert main(["evidence", *arguments]) == 1
    text = (tmp_path / "RESULTS.md").read_text()
    assert "gave other scores for event-v1-small, scene-v1-small" in text


def test_a_failed_task_writes_nothing(tasks_dir, tmp_path, runs, monkeypatch):
    failed = Result("scene-v1-small", None, "top1_acc", error="broken")
    monkeypatch.setattr(evidence, "run", lambda request: (tmp_path, [failed]))
    with pytest.raises(HearError, match="scene-v1-small failed"):
        evidence.evidence(tasks_dir, None, tmp_path / "runs", write=True)
    assert not (tmp_path / "RESULTS.md").exists()


def test_untrained_weights_are_the_bundled_model_without_training(tmp_path):
    path = evidence.untrained_weights(tmp_path / "a")
    first = path.read_bytes()
    assert evidence.untrained_weights(tmp_path / "a") == path
    assert path.read_bytes() == first
    checkpoint = load_checkpoint(path)
    again = load_checkpoint(evidence.untrained_weights(tmp_path / "b"))
    assert all(tensor.equal(again.tensors[name]) for name, tensor in checkpoint.tensors.items())
    assert checkpoint.config == load_checkpoint(bundled_weights()).config
    ours, untrained = load_model(), load_model(path)
    name, weight = next(
        (n, p) for n, p in untrained.named_parameters() if n.endswith("qkv.weight")
    )  # fmt: skip
    assert not weight.allclose(dict(ours.named_parameters())[name])
