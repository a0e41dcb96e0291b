"""The real hear-eval-kit, in the environment that `make hear-env` makes."""

from __future__ import annotations

import csv
import os
import re
import subprocess

import pytest
from hear_tasks import make_task
from quality_sources import make_cache, tone, write

from benchmarks.hear.kit import CHECKOUT

PYTHON = CHECKOUT / ".venv-hear" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.is_file(), reason="hear-eval-kit has its own environment: `make hear-env`"
    ),
]


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory):
    """Letters and sounds whose tones tell the label, built as a user builds them."""
    cache = make_cache(tmp_path_factory.mktemp("cache"))
    for index, name in enumerate(("kick", "snare", "hihat", "clap")):
        for i in range(6):
            write(cache, "lmms", f"drums/{name}_{i}.wav", tone(500 * (index + 1) + i, 0.4))
    out = tmp_path_factory.mktemp("work") / "tasks"
    arguments = ["--cache", str(cache), "--tasks", "letters", "sounds"]
    hear("tasks", "--out", str(out), *arguments, folder=out.parent)
    return out


def hear(*arguments, folder):
    """Run benchmarks.hear in the kit's environment; returns the finished process."""
    return subprocess.run(
        [str(PYTHON), "-m", "benchmarks.hear", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=arguments[0] == "tasks",
    )


def scores(folder):
    [table] = (folder / "runs/hear").glob("*/results.csv")
    return {row["task"]: row for row in csv.DictReader(table.open())}


def test_stage_1_typed_as_its_readme_says(tmp_path):
    tasks = [
        make_task(tmp_path / "tasks"),
        make_task(tmp_path / "tasks", "toys-v1-small", event=True),
    ]
    command = "python -m heareval.embeddings.runner hear_msm_mae --tasks-dir tasks"
    path = os.pathsep.join([str(PYTHON.parent), os.environ["PATH"]])
    done = subprocess.run(
        command.split(),
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for task in tasks:
        folder = tmp_path / "embeddings/hear_msm_mae" / task.name / "test"
        assert len(list(folder.glob("*.embedding.npy"))) == 2


GRID = ("--grid", "fast", "--grid-points", "1")


def test_both_stages_and_the_same_again(tasks_dir, tmp_path):
    for name, tasks in (("first", ()), ("second", ("--tasks", "sounds-v1-offline"))):
        (tmp_path / name).mkdir()
        arguments = ["--tasks-dir", str(tasks_dir), *tasks, *GRID]
        done = hear("run", *arguments, folder=tmp_path / name)
        assert done.returncode == 0, done.stderr
    first, second = scores(tmp_path / "first"), scores(tmp_path / "second")
    assert list(first) == ["letters-v1-offline", "sounds-v1-offline"]
    assert second["sounds-v1-offline"]["ours"] == first["sounds-v1-offline"]["ours"]
    # Three tones tell the letters apart, and onsets of loud tones are found.
    assert float(first["letters-v1-offline"]["ours"]) > 60
    assert float(first["sounds-v1-offline"]["ours"]) > 10
    for row in first.values():
        assert 300 < float(row["stage 1 MB"]) < 20_000
        assert float(row["stage 2 CPU s"]) > 1


def test_foreign_module_with_nan(tasks_dir, tmp_path):
    """NaN that only the clips of a task bring about is found after stage 1, with the file."""
    (tmp_path / "foreign.py").write_text(
        "import hear_msm_mae\n"
        "from hear_msm_mae import load_model, get_timestamp_embeddings\n"
        "def get_scene_embeddings(audio, model):\n"
        "    result = hear_msm_mae.get_scene_embeddings(audio, model)\n"
        # Tones of amplitude 0.5 are below this, the uniform noise of the validator is below.
        "    result[audio.std(dim=1) > 0.32] = float('nan')\n"
        "    return result\n"
    )
    arguments = ["--tasks-dir", str(tasks_dir), "--tasks", "letters-v1-offline", *GRID]
    done = hear("run", "--module", "foreign", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert re.search(r"FAILED, the embedding of \w+/\w+_0\d+.wav holds NaN", done.stderr)


def test_environment_is_what_the_requirements_say():
    command = [str(PYTHON), "-m", "pip", "freeze", "--all"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wanted = (CHECKOUT / "benchmarks/hear/requirements.txt").read_text().splitlines()
    installed, pins = (
        {line.lower().replace("_", "-") for line in lines if line and line[0] != "#"}
        for lines in (listed.splitlines(), wanted)
    )
    assert len(pins) > 15
    assert pins <= installed
