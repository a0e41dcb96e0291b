"""What check-tasks finds in a folder of HEAR tasks."""

from __future__ import annotations

import json

import pytest
from hear_tasks import make_task, write_clip

from benchmarks.hear.__main__ import main
from benchmarks.hear.check import check_task


@pytest.mark.parametrize("event", [False, True])
def test_nothing_is_wrong_with_a_good_folder(tmp_path, event, capsys):
    make_task(tmp_path, event=event)
    folds = {"split_mode": "new_split_kfold", "splits": ["fold00", "fold01", "fold02"]}
    make_task(tmp_path, "folds-v1-small", **folds)
    assert main(["check-tasks", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def write_json(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def vocabulary(*labels):
    rows = [f"{i},{label}" for i, label in enumerate(("high", "low", *labels))]
    return lambda f: (f / "labelvocabulary.csv").write_text("\n".join(["idx,label", *rows]))


AUDIO = "16000/train/train_low.wav"
# What is done to a sound task, the file that is named, and what is said about it.
DAMAGES = [
    (lambda f: (f / "valid.json").unlink(), "valid.json", "No such file"),
    (lambda f: (f / "valid.json").write_text("{"), "valid.json", "not readable as JSON"),
    (lambda f: (f / "valid.json").write_text("{}"), "valid.json", "at least one"),
    (lambda f: (f / "task_metadata.json").write_text("["), "task_metadata.json", "as JSON"),
    (lambda f: (f / AUDIO).unlink(), AUDIO, "missing"),
    (lambda f: (f / AUDIO).write_text("text"), AUDIO, "not readable as audio"),
    (lambda f: write_clip(f / AUDIO, rate=8000), AUDIO, "8000 Hz in a folder for 16000"),
    (lambda f: write_clip(f / AUDIO, channels=2), AUDIO, "2 channels"),
    (lambda f: write_clip(f / AUDIO, seconds=0.6), AUDIO, "0.6 s long, but sample_duration is"),
    (lambda f: write_clip(f / AUDIO, seconds=0.501), "16000/train", "8000 to 8016 samples long"),
    (lambda f: (f / "16000").rename(f / "audio"), "", "no audio at any Hz"),
    (vocabulary("NA"), "labelvocabulary.csv", "labels of [2] as missing values"),
    (vocabulary("low"), "labelvocabulary.csv", "there twice: ['low']"),
    (lambda f: (f / "labelvocabulary.csv").write_text("idx,label\n1,high\n2,low\n"),
     "labelvocabulary.csv", "idx must be 0 to 1"),
    (lambda f: (f / "labelvocabulary.csv").write_text("id,name\n"), "labelvocabulary.csv",
     "expected idx and label"),
    (lambda f: (f / "labelvocabulary.csv").unlink(), "labelvocabulary.csv", "No such file"),
    (lambda f: write_json(f, "test.json", {"test_low.wav": ["deep"], "test_high.wav": ["high"]}),
     "test.json", "test_low.wav: not in labelvocabulary.csv: ['deep']"),
    (lambda f: write_json(f, "test.json", {"test_low.wav": [], "test_high.wav": ["high"]}),
     "test.json", "test_low.wav: expected exactly one label"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "file", "message"), DAMAGES)
def test_a_problem_names_its_file(tmp_path, capsys, damage, file, message):
    folder = make_task(tmp_path)
    damage(folder)
    assert main(["check-tasks", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{folder / file}: ") and message in line for line in lines), lines
    # Nothing else is wrong, but what follows from it.
    assert len(lines) <= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": ["train", "valid", "tset"]}, "splits must name train, valid, test"),
        ({"split_mode": "new_split_kfold", "splits": ["a", "b"]}, "splits must name three or more"),
        ({"split_mode": "kfold"}, "split_mode must be one of"),
        ({"embedding_type": "clip"}, "embedding_type must be one of scene, event"),
        ({"evaluation": ["accuracy"]}, "evaluation must list some of top1_acc"),
        ({"evaluation": ["event_onset_50ms_fms"]}, "evaluation must list some of top1_acc"),
        ({"sample_duration": "1 s"}, "sample_duration must be seconds or null"),
    ],
)
def test_wrong_metadata_are_found(tmp_path, change, message):
    folder = make_task(tmp_path, **change)
    [problem] = check_task(folder)
    assert problem.startswith(f"{folder / 'task_metadata.json'}: ")
    assert message in problem


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"label": "low", "start": 300, "end": 100}, "expected 0 <= start <= end"),
        ({"label": "low", "start": 300}, "expected events with label, start and end"),
        ({"label": "NA", "start": 0, "end": 1}, "not in labelvocabulary.csv: ['NA']"),
    ],
)
def test_wrong_events_are_found(tmp_path, event, message):
    folder = make_task(tmp_path, event=True)
    write_json(folder, "test.json", {"test_low.wav": [event], "test_high.wav": []})
    [problem] = check_task(folder)
    assert "test_low.wav" in problem
    assert message in problem


def test_unknown_tasks_and_folders_without_any_are_named(tmp_path, caplog):
    make_task(tmp_path)
    assert main(["check-tasks", str(tmp_path), "--tasks", "toy-v2-small"]) == 1
    assert "has no task toy-v2-small; it has toy-v1-small" in caplog.text
    assert main(["check-tasks", str(tmp_path / "nowhere")]) == 1
    assert "nowhere holds no task" in caplog.text


def test_only_the_rate_that_will_be_used_is_checked(tmp_path):
    folder = make_task(tmp_path)
    assert check_task(folder, 16_000) == []
    assert check_task(folder, 44_100) == [f"{folder}: no audio at 44100 Hz, only at [16000]"]
    write_clip(folder / "44100" / "train" / "train_low.wav", rate=44_100)
    assert any("44100/train/train_high.wav: missing" in problem for problem in check_task(folder))
    assert check_task(folder, 16_000) == []


def test_many_problems_are_counted(tmp_path):
    folder = make_task(tmp_path)
    write_json(folder, "test.json", {f"{i}.wav": ["low"] for i in range(1000)})
    problems = check_task(folder)
    assert problems[-1] == f"{folder}: 980 more problems"
    assert len(problems) == 21
