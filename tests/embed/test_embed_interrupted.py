"""Runs of `embed` that are killed or find no room: what they leave, and going on from there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import numpy as np
import pytest
import soundfile
from embed_rows import assert_same, embed, expected_table, table
from hear_msm_mae.embed.target import Target

from hear_msm_mae.files import interrupts_held

ROOT = Path(__file__).parents[2]


def command(output: Path, *arguments: object) -> list[str]:
    return ["embed", "-o", str(output), *map(str, arguments)]


def started(words: list[str], folder: Path) -> BaseProcess:
    logs = folder / "stdout", folder / "stderr"
    return forked.start(forked.hear_msm_mae, words, cwd=ROOT, out=logs[0], err=logs[1])


def batches(output: Path) -> list[Path]:
    return sorted(output.with_name(f"{output.name}.partial").glob("batch-*.npz"))


@pytest.mark.parametrize("suffix", [".parquet", pytest.param(".h5", marks=pytest.mark.slow)])
def test_a_killed_run_leaves_a_readable_output(tmp_path, tiny_file, tiny_model, suffix):
    """SIGKILL in the middle of a long file behind many short ones, then the same command again."""
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(20):
        soundfile.write(tmp_path / f"in/{i:02}.wav", generator.uniform(-0.1, 0.1, 32000), 16000)
    second = generator.uniform(-0.1, 0.1, 16000)
    soundfile.write(tmp_path / "in/long.wav", np.tile(second, 1200), 16000)
    output = tmp_path / f"out{suffix}"
    run = command(output, tmp_path / "in", "-w", tiny_file, "--batch-seconds", 20)
    process = started(run, tmp_path)
    deadline = time.monotonic() + 120
    while (len(batches(output)) < 12 or not output.exists()) and time.monotonic() < deadline:
        assert process.is_alive(), (tmp_path / "stderr").read_text()
        time.sleep(0.002)
    process.kill()
    process.join()
    before = batches(output)
    assert len(before) >= 12
    # The output lags behind the batches by some twenty times what it takes to write it: it may
    # hold the ten files of the first batch, or all twenty.
    partial = table(output)
    assert partial
    assert_same(partial, expected_table(tmp_path / "in/[01]*.wav", tiny_model)[: len(partial)])
    second_run = forked.run(forked.hear_msm_mae, run, cwd=ROOT)
    assert second_run.returncode == 0, second_run.stderr
    assert "21 of 21 files" in second_run.stdout
    hours = float(second_run.stdout.split(" hours")[0].split()[-1])
    # It went on inside the long file, behind the last batch; two were of the short files, and the
    # last one may have been damaged.
    assert hours <= (1200 - 20 * (len(before) - 3)) / 3600 + 0.01
    assert not batches(output)
    assert_same(table(output), expected_table(tmp_path / "in", tiny_model))


def test_ctrl_c_says_how_to_go_on(tmp_path, tiny_file):
    soundfile.write(tmp_path / "long.wav", np.tile(np.linspace(-0.1, 0.1, 16000), 3600), 16000)
    output = tmp_path / "out.parquet"
    run = command(output, tmp_path / "long.wav", "-w", tiny_file, "--batch-seconds", 10)
    process = started(run, tmp_path)
    while not batches(output):
        assert process.is_alive(), (tmp_path / "stderr").read_text()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    err = (tmp_path / "stderr").read_text()
    assert "interrupted; repeat the command to go on" in err
    assert "Traceback" not in err


def test_ctrl_c_while_a_batch_is_written(recordings, tiny_model, tmp_path, monkeypatch):
    """The batch is written to its end, then the run stops, and the next one goes on behind it."""
    output = tmp_path / "out.parquet"
    append = Target.append

    def interrupted(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Target, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(output, recordings, tiny_model, batch_seconds=6)
    assert len(batches(output)) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert embed(output, recordings, tiny_model, batch_seconds=6).done == 10
    assert_same(table(output), expected_table(recordings, tiny_model))


def test_a_second_ctrl_c_is_not_held():
    reached = []

    def write():
        with interrupts_held():
            for number in (1, 2):
                os.kill(os.getpid(), signal.SIGINT)
                reached.append(number)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert reached == [1]


def limited(limit: int, words: list[str]) -> None:
    """`forked.hear_msm_mae` that cannot write files beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    forked.hear_msm_mae(words)


@pytest.mark.parametrize(("suffix", "limit"), [(".parquet", 9000), (".npz", 9000), (".h5", 3000)])
def test_no_room_for_the_output(recordings, tiny_file, tiny_model, tmp_path, suffix, limit):
    """Files may not grow beyond a limit: batches fit, or not even those; nothing is lost."""
    output = tmp_path / f"out{suffix}"
    run = command(output, recordings, "-w", tiny_file, "--batch-seconds", 6, "--timestamps")
    result = forked.run(limited, limit, run, cwd=ROOT)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert f"{output} cannot be written: File too large" in result.stderr
    assert "make room and repeat the command" in result.stderr
    left = {path.name for path in output.with_name(f"{output.name}.partial").iterdir()}
    assert all(name.startswith(("batch-0", "settings.json", "lock")) for name in left), left
    summary = embed(output, recordings, tiny_model, timestamps=True)
    assert summary.done == 10
    assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root"
)
def test_a_full_disk(recordings, tiny_file, tiny_model, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        output = disk / "out.npz"
        run = command(output, recordings, "-w", tiny_file, "--batch-seconds", 6, "--timestamps")
        result = forked.run(forked.hear_msm_mae, run, cwd=ROOT)
        assert result.returncode == 2
        assert f"error: {output} cannot be written: No space left on device" in result.stderr
        kept = len(batches(output))
        assert kept >= 1
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        summary = embed(output, recordings, tiny_model, timestamps=True)
        assert summary.done == 10
        assert summary.seconds < 27
        assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
