"""The order of things in a benchmark run, with a stand-in for the kit."""

from __future__ import annotations

import csv
import json
import os

import pytest
from hear_tasks import FakeKit, make_task, write_clip

from benchmarks.hear import kit, results
from benchmarks.hear.__main__ import main
from benchmarks.hear.task import read_task

STAGES = ["benchmarks.hear.module", "embeddings.runner", "predictions.runner"]


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "kit").mkdir()
    return FakeKit(tmp_path / "kit")


@pytest.fixture
def go(tmp_path, fake, capsys, monkeypatch):
    """Function that runs the benchmark on tmp_path/tasks; returns (exit status, stdout)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kit, "PYTHON", str(fake.python))
    (tmp_path / "kit" / "heareval.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "kit")

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
    assert (folder / "toy-v1-small/stage2.log").is_file()


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
    # A task that was changed under the same name.
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
    assert "stage 2: AssertionError: something in the kit" in rows["bad-v1-small"]
    assert "stage2.log" in rows["bad-v1-small"]
    # Stage 2 would stop at these with an assertion; the file is named instead.
    assert "the embedding of test/test_high.wav holds NaN" in rows["nan-v1-small"]
    assert fake.calls().count("predictions.runner") == 3
    # Only what failed is tried again.
    assert go()[0] == 1
    assert fake.calls() == [STAGES[0], STAGES[2], STAGES[1]]


def test_a_run_that_was_killed_in_stage_2_does_not_embed_again(tmp_path, fake, go):
    make_task(tmp_path / "tasks")
    go()
    fake.calls()
    where = run_folder(tmp_path) / "toy-v1-small"
    [result] = where.glob("result-*.json")
    result.unlink()
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
    (folder / "16000/test/test_low.wav").unlink()
    assert go()[0] == 1
    assert "test_low.wav: missing" in caplog.text
    assert fake.calls() == STAGES[:1]


def test_rate_of_the_module_is_not_there(tmp_path, fake, go, caplog):
    make_task(tmp_path / "tasks")
    fake.answer(sample_rate=44_100)
    assert go()[0] == 1
    assert "no audio at 44100 Hz, only at [16000]" in caplog.text
    assert fake.calls() == STAGES[:1]


def test_bad_module_and_weights(tmp_path, fake, go, caplog):
    make_task(tmp_path / "tasks")
    fake.answer(error="no function load_model")
    assert go()[0] == 1
    assert "does not follow the HEAR API: no function load_model (exit status 1" in caplog.text
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
    assert "it has a-v1-small, b-v1-small" in caplog.text


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


def test_no_kit(tmp_path, caplog):
    make_task(tmp_path / "tasks")
    assert main(["run", "--tasks-dir", str(tmp_path / "tasks")]) == 1
    assert "make hear-env" in caplog.text


def test_peak_memory_and_status_of_a_process(tmp_path):
    code = "import sys; x = bytearray(200_000_000); print('said'); sys.exit(3)"
    status, cost = kit.run_logged(["-c", code], tmp_path / "log", tmp_path)
    assert status == 3
    assert 200 < cost["MB"] < 4000
    assert cost["CPU s"] > 0
    assert kit.last_line(tmp_path / "log") == "said"


def test_modules_of_the_current_folder_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text("print('imported')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert kit.run_logged(["-m", "my_model"], tmp_path / "log", tmp_path / "elsewhere")[0] == 0
    assert kit.last_line(tmp_path / "log") == "imported"
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


def test_leaderboard():
    rows = results.leaderboard()
    assert rows.shape == (7, 8)
    assert ((rows > 0) & (rows < 100)).all(axis=None)
    assert (rows.max(axis="columns") == rows["best"]).all()


@pytest.mark.parametrize(
    ("folder", "official"),
    [
        ("tfds_crema_d-1.0.0-full", "crema_d"),
        ("esc50-v2.0.0-full", "esc50"),
        ("esc50-v2.0.0-small", None),
        ("libricount-v1.0.0-hear2021-full", "libricount"),
        ("speech_commands-v0.0.2-5h", "speech_commands-5h"),
        ("speech_commands-v0.0.2-full", None),
        ("letters-v1-offline", None),
    ],
)
def test_official_tasks(folder, official):
    assert results.official_name(folder) == official


def test_published_scores_beside_ours(tmp_path):
    task = read_task(make_task(tmp_path, "esc50-v2.0.0-full"))
    folds = {"aggregated_scores": {"test_top1_acc_mean": 0.5, "test_top1_acc_std": 0.02}}
    found = [results.scored(task, folds, [])]
    header, _, row = results.markdown(results.table(found)).splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["PaSST 2lvl"] == "94.7"
    assert cells["ours"] == "50.0"
    assert cells["spread"] == "2.0"
    other = results.Result("toy-v1-small", "top1_acc", error="broke | here")
    text = results.markdown(results.table([*found, other]))
    assert "broke / here" in text  # a bar would end the cell
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "PaSST 2lvl" not in results.markdown(results.table([other]))


def test_error_rates_are_no_percentages():
    assert results.percent("segment_1s_er", 1.5) == 1.5
    assert results.percent("mAP", 0.25) == 25
