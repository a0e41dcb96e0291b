"""What a terminal sees of the command line: no commands from file names, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import forked
import numpy as np
import pytest
import soundfile
from cli_errors import assert_one_line_error

from hear_msm_mae.files import for_terminal

# ESC clears the screen, \x9b does the same in one byte, \u202e shows what follows from right to
# left, and the second line would pass for a message.
EVIL = "a\x1b[2J\x9b2J\u202egnp\u2066\r\n1 of 1 files.wav"
SHOWN = r"a\x1b[2J\x9b2J\u202egnp\u2066\r\n1 of 1 files.wav"
posix = pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")


@pytest.mark.parametrize(
    "line",
    [
        "Grüße/ноты/録音 01.wav",
        "خانه\u200cها.wav",  # noqa: RUF001
        "👩\u200d🎤.ogg",
        r"back\slash.wav",
        "a [b].wav",
    ],
)
def test_names_of_any_language_are_shown_as_they_are(line):
    assert for_terminal(line) == line


def test_bytes_that_are_not_utf_8_are_shown_as_escapes():
    assert for_terminal("caf\udce9.wav").encode() == rb"caf\udce9.wav"


@posix
def test_names_cannot_act_on_the_terminal(run, tiny_file, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / EVIL).write_text("not audio")
    soundfile.write(folder / "b.wav", np.zeros(8000), 16000)
    for command, output in (("embed", "\x1b]0;x\x07.npz"), ("report", "\x1b]0;x\x07.html")):
        result = run(command, folder, "-o", tmp_path / output, "-w", tiny_file)
        assert result.status == 3, result.err
        assert f"could not read {folder}/{SHOWN}: " in result.err
        assert r"1 of 2 files -> " in result.out
        assert r"\x1b]0;x\x07" in result.out
        assert set("\x1b\x9b\x07\r\u202e\u2066").isdisjoint(result.out + result.err)


@posix
def test_names_in_errors_cannot_either(run, tmp_path):
    assert_one_line_error(run("info", tmp_path / EVIL), r"\\x1b\[2J.*\\r\\n1 of 1")
    result = run("embed", tmp_path / EVIL, "-o", tmp_path / "out.npz")
    assert_one_line_error(result, r"\\x1b\[2J.*\\r\\n1 of 1")


@posix
def test_names_in_log_lines_cannot_either(tmp_path):
    """In a process whose logging is that of the command, not that of pytest."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / EVIL).write_text("not audio")
    soundfile.write(tmp_path / "in" / "b.wav", np.random.default_rng(0).normal(0, 0.1, 9000), 16000)
    result = forked.run(forked.hear_msm_mae, ["prepare", "in", "out", "--workers", 1], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert r"INFO: skipped" in result.stderr
    assert set("\x1b\x9b\u202e\u2066").isdisjoint(result.stderr)


# ---------------------------------------------------------------------------------------------
# Ctrl-C
# ---------------------------------------------------------------------------------------------
# Stands for the places in torch where C++ code makes another error of an exception.
LOADING = """
import sys, time, torch
from hear_msm_mae import cli

def load_state_dict(self, *_, **__):
    try:
        open("loading", "w").close()
        time.sleep(60)
    except BaseException:
        raise RuntimeError("setStorage: sizes do not fit the storage") from None

torch.nn.Module.load_state_dict = load_state_dict
cli.main()
"""


@pytest.mark.parametrize("command", ["embed", "report", "attention"])
def test_interrupted_while_the_model_loads(command, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16000)
    ending = {"embed": ".npz", "report": ".html", "attention": ".png"}[command]
    arguments = [command, "a.wav", "-o", f"out{ending}"]
    process = forked.start(
        forked.code, LOADING, arguments, cwd=tmp_path, out=tmp_path / "o", err=tmp_path / "e"
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "loading").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 130, (tmp_path / "e").read_text()
    assert (tmp_path / "e").read_text() == "interrupted\n"
    assert (tmp_path / "o").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "loading", "o", "e"}


def test_interrupted_in_the_middle_of_a_command(run, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hear_msm_mae.corpus.prepare.prepare", interrupted)
    result = run("prepare", tmp_path, tmp_path / "out")
    assert (result.status, result.err) == (130, "interrupted\n")


# ---------------------------------------------------------------------------------------------
# Help
# ---------------------------------------------------------------------------------------------
def test_help_imports_nothing_heavy():
    code = (
        "import sys, contextlib\n"
        "from hear_msm_mae.cli import main\n"
        "for words in (['--help'], ['embed', '--help'], ['finetune', '--help'], ['--version']):\n"
        "    sys.argv[1:] = words\n"
        "    with contextlib.suppress(SystemExit): main()\n"
        "print([m for m in ('torch', 'numpy', 'soundfile', 'tqdm') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
