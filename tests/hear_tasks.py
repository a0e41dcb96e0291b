"""Small tasks in HEAR's format, and a stand-in for the interpreter that has heareval."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000
SPLITS = ("train", "valid", "test")


def make_task(
    tasks_dir: Path, name: str = "toy-v1-small", event: bool = False, **changes: Any
) -> Path:
    """A sound task with two clips of half a second per split; `changes` go into the metadata."""
    folder = tasks_dir / name
    metadata = {
        "task_name": name.split("-")[0],
        "embedding_type": "event" if event else "scene",
        "prediction_type": "multilabel" if event else "multiclass",
        "split_mode": "trainvaltest",
        "splits": list(SPLITS),
        "sample_duration": 0.5,
        "evaluation": ["event_onset_50ms_fms" if event else "top1_acc"],
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "task_metadata.json").write_text(json.dumps(metadata))
    (folder / "labelvocabulary.csv").write_text("idx,label\n0,high\n1,low\n")
    for split in metadata["splits"]:
        labels = {}
        for label in ("low", "high"):
            file = f"{split}_{label}.wav"
            events = [{"label": label, "start": 100.0, "end": 300.0}]
            labels[file] = events if event else [label]
            write_clip(folder / str(RATE) / split / file)
        (folder / f"{split}.json").write_text(json.dumps(labels))
    return folder


def write_clip(path: Path, seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> None:
    """A clip of soft noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * rate), channels)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(shape), rate)


FAKE = """#!{python}
import json, sys, pathlib
module, arguments = sys.argv[2], sys.argv[3:]
with open({calls!r}, "a") as stream:
    stream.write(" ".join([module, *arguments]) + "\\n")
if module.endswith("hear.module"):
    report = json.loads(pathlib.Path({report!r}).read_text())
    if "error" in report:
        sys.exit(report["error"])
    pathlib.Path(arguments[0]).write_text(json.dumps(report))
    sys.exit()
if "embeddings" in module:
    import numpy as np
    tasks, name = arguments[-3], arguments[-1]
    folder = pathlib.Path("embeddings", "fake", name)
    for split in ("train", "valid", "test"):
        (folder / split).mkdir(parents=True)
        labels = json.loads(pathlib.Path(tasks, name, split + ".json").read_text())
        for file in labels:
            vector = np.full(2, np.nan if name.startswith("nan") else 1, np.float32)
            np.save(folder / split / (file + ".embedding.npy"), vector)
    sys.exit()
folder = pathlib.Path(arguments[0])
if folder.name.startswith("bad"):
    sys.exit("Traceback (most recent call last):\\nAssertionError: something in the kit")
scores = {{"test": {{"test_score": 0.75, "test_top1_acc": 0.75}}}}
(folder / "test.predicted-scores.json").write_text(json.dumps(scores))
"""


class FakeKit:
    """An executable that answers like the kit's interpreter and writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.python, self.report, self.log = folder / "python", folder / "report", folder / "calls"
        script = FAKE.format(python=sys.executable, calls=str(self.log), report=str(self.report))
        self.python.write_text(script)
        self.python.chmod(0o755)
        self.answer()

    def answer(self, **changes: Any) -> None:
        """What `benchmarks.hear.module` reports from now on."""
        report = {"sample_rate": RATE, "version": "1", "model_digest": "a", **changes}
        self.report.write_text(json.dumps(report))

    def calls(self) -> list[str]:
        """Modules that were run since the last time this was asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line.split()[0].removeprefix("heareval.") for line in lines]
