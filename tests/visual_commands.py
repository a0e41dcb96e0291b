"""The visual commands in this process, odd sounds for them, and what a report page holds."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import soundfile
from typer.testing import CliRunner

from hear_msm_mae.checkpoints.native import Checkpoint, save_checkpoint
from hear_msm_mae.cli import app

EVIL = "<img src=x onerror=alert(1)>.wav"
QUOTES = 'it\'s "quoted" & <!-- odd.wav'


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def encoder_only(checkpoint: Checkpoint, path):
    tensors = {k: v for k, v in checkpoint.tensors.items() if k.startswith("encoder.")}
    save_checkpoint(path, Checkpoint(checkpoint.config, tensors))
    return path


def tone(path: Path, hertz: float, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * 16000)) / 16000)
    with path.open("wb") as file:  # soundfile cannot open every name
        soundfile.write(file, samples, 16000, format="WAV")


def write_odd_clips(folder: Path) -> None:
    """Clips of two kinds, short ones, names that try to break out, and files that are no audio."""
    for index in range(3):
        tone(folder / "low" / f"{index}.wav", 300 + 10 * index, 2.5)
        tone(folder / "high" / "far" / f"{index}.wav", 4000 + 100 * index)
    tone(folder / "low" / EVIL, 500)
    tone(folder / "low" / QUOTES, 510)
    tone(folder / "short" / "50 samples.wav", 500, 50 / 16000)
    tone(folder / "short" / "two\nlines.wav", 500, 0.1)
    if os.name == "posix":
        tone(folder / "short" / os.fsdecode(b"caf\xe9.wav"), 800, 0.1)
    (folder / "broken <b>.wav").write_text("no audio")
    (folder / "empty.flac").write_bytes(b"")


class Reader(HTMLParser):
    """Elements of a page and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts[-1] += data


def data_of(page: Path) -> dict:
    return json.loads(Reader(page.read_text("utf-8")).scripts[0])
