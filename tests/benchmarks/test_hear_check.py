"""What check-tasks finds in a folder of HEAR tasks."""

from __future__ import annotations

import json

import pytest
from hear_tasks import make_task, write_clip

from benchmarks.hear.__main__ import main
from benchmarks.hear.check import check_tasks
from benchmarks.hear.check_files import batch_of_one
from benchmarks.hear.tasks_format import read_task


def found(tasks_dir, **options):
    return [str(problem) for problem in check_tasks(tasks_dir, **options)]


@pytest.mark.parametrize("event", [False, True])
def test_nothing_is_wrong_with_a_good_folder(tmp_path, event, capsys):
    make_task(tmp_path, event=event)
    folds = {"split_mode": "new_split_kfold", "splits": ["fold00", "fold01", "fold02"]}
    make_task(tmp_path, "folds-v1-small", **folds)
    assert found(tmp_path) == []
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
    (lambda f: (f / "valid.json").unlink(), "valid.json", "split valid is missing"),
    (lambda f: (f / "valid.json").write_text("{"), "valid.json", "not readable as JSON"),
    (lambda f: (f / "valid.json").write_text("{}"), "valid.json", "at least one"),
    (lambda f: (f / "task_metadata.json").write_text("["), "task_metadata.json", "as JSON"),
    (lambda f: (f / AUDIO).unlink(), AUDIO, "missing, but train.json names it"),
    (lambda f: (f / AUDIO).write_text("text"), AUDIO, "not readable as audio"),
    (lambda f: write_clip(f / AUDIO, rate=8000), AUDIO, "8000 Hz in a folder for 16000"),
    (lambda f: write_clip(f / AUDIO, channels=2), AUDIO, "2 channels"),
    (lambda f: write_clip(f / AUDIO, seconds=0.6), AUDIO, "0.6 s long, but sample_duration is"),
    (lambda f: write_clip(f / AUDIO, seconds=0.501), AUDIO, "8016 samples long, other clips 8000"),
    (lambda f: write_clip(f / AUDIO, seconds=0), AUDIO, "holds no audio"),
    (lambda f: write_clip(f / "16000/test/extra.wav"), "16000/test/extra.wav", "not used"),
    (lambda f: (f / "16000").rename(f / "audio"), "", "no folder of audio"),
    (lambda f: (f / "16000/test").rename(f / "elsewhere"), "16000/test", "split test is missing"),
    (vocabulary("NA"), "labelvocabulary.csv", "'NA' would be read as a missing value"),
    (vocabulary("None"), "labelvocabulary.csv", "'None' would be read as a missing value"),
    (vocabulary("low"), "labelvocabulary.csv", "'low' is there 2 times"),
    (lambda f: (f / "labelvocabulary.csv").write_text("idx,label\n1,high\n2,low\n"),
     "labelvocabulary.csv", "idx must be 0 to 1"),
    (lambda f: (f / "labelvocabulary.csv").write_text("id,name\n"), "labelvocabulary.csv",
     "expected idx and label"),
    (lambda f: (f / "labelvocabulary.csv").unlink(), "labelvocabulary.csv", "not readable"),
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
        ({"splits": ["train", "valid"]}, "split test is missing"),
        ({"split_mode": "new_split_kfold", "splits": ["a", "b"]}, "2 fold(s) are too few"),
        ({"split_mode": "kfold"}, "split_mode must be one of"),
        ({"embedding_type": "clip"}, "embedding_type must be one of scene, event"),
        ({"evaluation": ["accuracy"]}, "evaluation must list some of top1_acc"),
        ({"evaluation": ["event_onset_50ms_fms"]}, "evaluation must list some of top1_acc"),
        ({"sample_duration": "1 s"}, "sample_duration must be seconds or null"),
        ({"task_name": None}, "task_name is missing"),
    ],
)
def test_wrong_metadata_are_found(tmp_path, change, message):
    folder = make_task(tmp_path, **change)
    [problem] = found(tmp_path)
    assert problem.startswith(f"{folder / 'task_metadata.json'}: ")
    assert message in problem


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"label": "low", "start": 300, "end": 100}, "expected 0 <= start <= end"),
        ({"label": "low", "start": 300}, "expected events with label, start and end"),
        ({"label": "NA", "start": 0, "end": 1}, "not in labelvocabulary.csv: 'NA'"),
        ({"label": "low", "start": 700, "end": 800}, "ends after 0.5 s, but an event starts at 7"),
    ],
)
def test_wrong_events_are_found(tmp_path, event, message):
    folder = make_task(tmp_path, event=True)
    write_json(folder, "test.json", {"test_low.wav": [event], "test_high.wav": []})
    [problem] = found(tmp_path)
    assert "test_low.wav" in problem
    assert message in problem


def test_stray_entries_and_unknown_tasks_are_named(tmp_path):
    make_task(tmp_path)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "downloads").mkdir()
    problems = check_tasks(tmp_path, names=["toy-v1-small", "toy-v2-small"])
    assert [p.path.name for p in problems] == [".DS_Store", "downloads", "toy-v2-small"]
    assert [p.harmless for p in problems] == [True, True, False]
    assert "has toy-v1-small" in problems[-1].message
    assert found(tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'}: no such folder"]


def test_only_the_rate_that_will_be_used_is_checked(tmp_path):
    folder = make_task(tmp_path)
    assert found(tmp_path, rate=16_000) == []
    [problem] = found(tmp_path, rate=44_100)
    assert problem.startswith(f"{folder / '44100'}: no such folder")
    assert "[16000]" in problem
    write_clip(folder / "44100" / "train" / "train_low.wav", rate=44_100)
    assert any("44100/train/train_high.wav: missing" in problem for problem in found(tmp_path))
    assert found(tmp_path, rate=16_000) == []


@pytest.mark.parametrize(("clips", "crashes"), [(1024, 0), (1025, 1), (1026, 0), (3073, 1), (1, 1)])
def test_a_last_batch_of_one_is_found(tmp_path, clips, crashes):
    task = read_task(make_task(tmp_path))
    sizes = {"train": clips, "valid": 1025, "test": 1025}  # only training is in batches
    assert len(list(batch_of_one(task, sizes, "clips"))) == crashes


def test_a_last_batch_of_one_is_found_in_every_division_of_folds(tmp_path):
    folds = ["fold00", "fold01", "fold02", "fold03"]
    task = read_task(make_task(tmp_path, split_mode="presplit_kfold", splits=folds))
    # Trained on 02 + 03, 03 + 00, 00 + 01, 01 + 02.
    assert task.training_sets == [[*folds[2:]], ["fold00", "fold03"], folds[:2], folds[1:3]]
    sizes = dict(zip(folds, (500, 525, 500, 600), strict=True))
    [first, second] = batch_of_one(task, sizes, "clips")
    assert "fold00 + fold01 has 1025" in first.message
    assert "fold01 + fold02 has 1025" in second.message


def test_many_problems_are_counted(tmp_path):
    folder = make_task(tmp_path)
    labels = {f"{i}.wav": ["low"] for i in range(1000)}
    write_json(folder, "test.json", labels)
    problems = found(tmp_path)
    assert any("980 more problems of this kind" in problem for problem in problems)
    assert len(problems) < 60
