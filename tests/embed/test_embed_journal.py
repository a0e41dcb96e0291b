"""The journal of a run: work that grows with the number of recordings, not with its square."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hear_msm_mae.embed.cut import make_plan
from hear_msm_mae.embed.inputs import Task
from hear_msm_mae.embed.journal import Journal
from hear_msm_mae.embed.pipeline import Batch, Chunk

from hear_msm_mae.embed.settings import settings_of


def journal_of(count: int, folder: Path, model) -> tuple[Journal, dict]:
    """One batch with so many recordings of one second."""
    tasks = [Task(f"{i}.wav", name=f"{i}.wav") for i in range(count)]
    settings = settings_of(model, "tiny").stored(tasks)
    rows = np.arange(count, dtype=np.float32)[:, None]
    chunks = [Chunk(i, 0, True, True, 0.0, 1.0, rows[i : i + 1]) for i in range(count)]
    journal = Journal(folder)
    journal.open(settings)
    journal.append(tasks, Batch(chunks, [], None, {}))
    return journal, settings


def calls(function) -> int:
    """Python functions and generator steps that a call takes."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_twice_the_recordings_take_twice_the_work(tiny_model, tmp_path):
    plan = make_plan(tiny_model, timestamps=False)
    work = {}
    for count in (200, 400):
        journal, settings = journal_of(count, tmp_path / str(count), tiny_model)
        found: list[float] = []

        def read(journal=journal, settings=settings, found=found):
            content = journal.content(plan, settings, 1)
            found += [float(row) for block in content.blocks() for row in block.rows[:, 0]]

        work[count] = calls(read)
        journal.close(remove=True)
        assert found == list(range(count))
    assert work[400] / work[200] == pytest.approx(2, abs=0.2)
