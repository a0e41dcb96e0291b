"""The order of things in a benchmark run, with a stand-in for the kit."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest
from hear_tasks import FakeKit, make_task, write_clip

from benchmarks.hear import kit, results
from benchmarks.hear.__main__ import main
from benchmarks.hear.tasks_format import read_task

STAGES = ["benchmarks.hear.probe", "embeddings.runner", "predictions.runner"]


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "kit").mkdir()
    return FakeKit(tmp_path / "kit")


@pytest.fixture
def go(tmp_path, fake, capsys, monkeypatch):
    """Function that runs the benchmark on tmp_path/tasks; returns (exit status, stdout)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kit, "ENVIRONMENT", fake.environment)

    def go(*arguments):
        common = ["--tasks-dir", "tasks", "--runs-dir", "runs"]
        status = main(["run", "--module", "some.module", *common, *map(str, arguments)])
        return status, capsys.readouterr().out

    return go


def run_folder(tmp_path):
    [folder] = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    return folder


def test_scores_costs_and_logs(tmp_path, fake, go):
    make_task(tmp_path / "tasks")
    status, table = go()
    assert status == 0
    assert fake.calls() == STAGES
    assert "| toy-v1-small | top1_acc | 75.0 |" in table
    folder = run_folder(tmp_path)
    [row] = csv.DictReader((folder / "results.csv").open())
    assert float(row["ours"]) == 75
    assert float(row["stage 1 s"]) > 0
    assert float(row["stage 2 MB"]) > 5  # no Python is smaller
    assert (folder / "results.md").read_text() in table
    assert "heareval.predictions.runner" in (folder / "tasks/toy-v1-small/stage2.log").read_text()


def test_what_is_done_is_skipped_unless_settings_changed(tmp_path, fake, go):
    folder = make_task(tmp_path / "tasks")
    _, table = go()
    fake.calls()
    assert go() == (0, table)  # also the costs, as they were
    assert fake.calls() == STAGES[:1]
    go("--grid-points", 3)
    assert fake.calls() == [STAGES[0], STAGES[2]]  # the embeddings are the same
    go("--grid", "fast", "--grid-points", 3)
    assert fake.calls() == [STAGES[0], STAGES[2]]
    # A task that was changed below the same name: labels, then audio.
    (folder / "train.json").write_text(
        json.dumps({"train_low.wav": ["high"], "train_high.wav": ["high"]})
    )
    go("--grid", "fast", "--grid-points", 3)
    assert fake.calls() == STAGES
    write_clip(folder / "16000/extra/x.wav")  # not of any split
    go("--grid", "fast", "--grid-points", 3)
    assert fake.calls() == STAGES[:1]


@pytest.mark.parametrize("change", ["options", "weights", "parameters", "version"])
def test_other_models_have_other_folders(tmp_path, fake, go, change):
    make_task(tmp_path / "tasks")
    weights = tmp_path / "weights.bin"
    weights.write_text("a")
    assert go("--weights", weights)[0] == 0
    fake.calls()
    arguments = ["--weights", weights]
    if change == "options":
        arguments += ["--options", '{"timestamp_hop_ms": 20}']
    elif change == "weights":
        weights.write_text("b")
    else:  # the weights that the module loads by itself, or its code
        fake.answer(**{{"parameters": "model_digest"}.get(change, change): "b"})
    assert go(*arguments)[0] == 0
    assert fake.calls() == STAGES
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 2
    moved = weights.rename(tmp_path / "moved.bin")
    assert go(*(moved if x is weights else x for x in arguments))[0] == 0
    assert fake.calls() == STAGES[:1]


def test_a_failed_task_fails_the_run_but_not_the_others(tmp_path, fake, go):
    for name in ("a-v1-small", "bad-v1-small", "nan-v1-small", "toy-v1-small"):
        make_task(tmp_path / "tasks", name)
    status, table = go()
    assert status == 1
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if "small" in line}
    assert "| 75.0 |" in rows["a-v1-small"]
    assert "| 75.0 |" in rows["toy-v1-small"]
    assert "failed" in rows["bad-v1-small"]
    assert "exit status 1: AssertionError: something in the kit" in rows["bad-v1-small"]
    assert "stage2.log" in rows["bad-v1-small"]
    # Stage 2 would stop at these with an assertion; the file is named instead.
    assert "train/train_low.wav: 2 of the 2 values of its embedding are NaN" in rows["nan-v1-small"]
    assert fake.calls().count("predictions.runner") == 3
    # Only what failed is tried again.
    assert go()[0] == 1
    assert fake.calls() == [STAGES[0], STAGES[2], STAGES[1]]


def test_interrupted_stage_starts_again(tmp_path, fake, go):
    make_task(tmp_path / "tasks")
    go()
    fake.calls()
    where = run_folder(tmp_path) / "tasks/toy-v1-small"
    (where / "stage1.json").unlink()
    go()
    assert fake.calls() == STAGES[:2]  # embedded again, the scores are those of these settings
    (where / "stage2.json").write_text("{")
    go()
    assert fake.calls() == [STAGES[0], STAGES[2]]


def test_embeddings_can_be_deleted(tmp_path, fake, go):
    make_task(tmp_path / "tasks")
    go("--delete-embeddings")
    assert list((run_folder(tmp_path) / "embeddings").rglob("*.npy")) == []
    fake.calls()
    assert go()[0] == 0
    assert fake.calls() == STAGES[:1]
    go("--grid-points", 2)
    assert fake.calls() == STAGES


def test_bad_tasks_stop_the_run_before_anything(tmp_path, fake, go, caplog):
    folder = make_task(tmp_path / "tasks")
    (tmp_path / "tasks" / "notes.txt").touch()
    assert go()[0] == 0  # reported, but harmless
    assert "notes.txt" in caplog.text
    fake.calls()
    (folder / "16000/test/test_low.wav").unlink()
    assert go()[0] == 1
    assert "test_low.wav: missing" in caplog.text
    assert fake.calls() == []


def test_rate_of_the_module_is_not_there(tmp_path, fake, go, caplog):
    make_task(tmp_path / "tasks")
    fake.answer(sample_rate=44_100)
    assert go()[0] == 1
    assert "the module wants 44100 Hz, and there is [16000]" in caplog.text
    assert fake.calls() == STAGES[:1]


def test_bad_module_and_weights(tmp_path, fake, go, caplog):
    make_task(tmp_path / "tasks")
    fake.answer(error="some.module has no function load_model")
    assert go()[0] == 1
    assert "some.module has no function load_model (stack trace: " in caplog.text
    fake.calls()
    assert go("--weights", tmp_path / "none.pt")[0] == 1
    assert f"no weights file at {tmp_path / 'none.pt'}" in caplog.text
    assert fake.calls() == []


def test_chosen_tasks_only(tmp_path, fake, go, caplog):
    make_task(tmp_path / "tasks", "a-v1-small")
    broken = make_task(tmp_path / "tasks", "b-v1-small")
    (broken / "train.json").unlink()
    status, table = go("--tasks", "a-v1-small")
    assert status == 0
    assert "b-v1-small" not in table
    assert go("--tasks", "c-v1-small")[0] == 1
    assert "has a-v1-small, b-v1-small" in caplog.text


def test_one_table_for_tasks_that_are_run_one_by_one(tmp_path, fake, go):
    for name in ("a-v1-small", "b-v1-small"):
        make_task(tmp_path / "tasks", name)
    go("--tasks", "b-v1-small")
    (tmp_path / "tasks" / "c-v1-small").mkdir()
    (tmp_path / "tasks" / "c-v1-small" / "task_metadata.json").write_text("{}")
    status, table = go("--tasks", "a-v1-small")
    assert status == 0
    assert [line.split()[1] for line in table.splitlines()[2:] if line] == [
        "a-v1-small", "b-v1-small",
    ]  # fmt: skip
    # Scores of another grid are not mixed in.
    assert "b-v1-small" not in go("--tasks", "a-v1-small", "--grid", "faster")[1]


def test_no_kit(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kit, "ENVIRONMENT", tmp_path / "none")
    monkeypatch.setattr(kit.importlib.util, "find_spec", lambda name: None)
    make_task(tmp_path / "tasks")
    assert main(["run", "--tasks-dir", str(tmp_path / "tasks")]) == 1
    assert "make hear-env" in caplog.text


def test_peak_memory_and_status_of_a_process(tmp_path):
    code = "import sys; x = bytearray(200_000_000); print('said'); sys.exit(3)"
    status, cost = kit.run_logged([sys.executable, "-c", code], tmp_path / "log", tmp_path)
    assert status == 3
    assert 200 < cost.peak_mb < 4000
    assert cost.cpu_seconds > 0
    assert kit.last_line(tmp_path / "log") == "said"


def test_killed_process(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert kit.run_logged([sys.executable, "-c", code], tmp_path / "log", tmp_path)[0] == -9


def test_modules_of_the_current_folder_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text("print('imported')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-m", "my_model"]
    assert kit.run_logged(command, tmp_path / "log", tmp_path / "elsewhere")[0] == 0
    assert kit.last_line(tmp_path / "log") == "imported"
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


def test_leaderboard():
    rows = results.leaderboard()
    assert len(rows) == 7
    for row in rows.values():
        scores = [float(row[key]) for key in row if key not in ("task", "title")]
        assert len(scores) == 8
        assert all(0 < score < 100 for score in scores)
        assert max(scores) == float(row["best"])


@pytest.mark.parametrize(
    ("folder", "name", "official"),
    [
        ("tfds_crema_d-1.0.0-full", "tfds_crema_d", "crema_d"),
        ("esc50-v2.0.0-full", "esc50", "esc50"),
        ("esc50-v2.0.0-small", "esc50", None),
        ("speech_commands-v0.0.2-5h", "speech_commands", "speech_commands-5h"),
        ("speech_commands-v0.0.2-full", "speech_commands", None),
        ("nsynth_pitch-v2.2.3-50h", "nsynth_pitch", None),
        ("letters-v1-offline", "letters", None),
    ],
)
def test_official_tasks(tmp_path, folder, name, official):
    task = read_task(make_task(tmp_path, folder, task_name=name))
    assert results.official_name(task) == official


def test_published_scores_beside_ours(tmp_path):
    task = read_task(make_task(tmp_path, "esc50-v2.0.0-full", task_name="esc50"))
    folds = {"aggregated_scores": {"test_top1_acc_mean": 0.5, "test_top1_acc_std": 0.02}}
    cost = kit.Cost(1.0, 1.0, 100.0)
    found = [results.scored(task, folds, [cost, cost])]
    header, _, row = results.markdown("ours", found).splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["PaSST 2lvl"] == "94.7"
    assert cells["spread"] == "2.0"
    other = results.failed(read_task(make_task(tmp_path)), "broke | here", [])
    text = results.markdown("ours", [*found, other])
    assert "broke / here" in text  # a bar would end the cell
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "PaSST 2lvl" not in results.markdown("ours", [other])


def test_error_rates_are_no_percentages():
    assert results.percent("segment_1s_er", 1.5) == 1.5
    assert results.percent("mAP", 0.25) == 25
