"""Runs of `embed` that are killed or find no room: what they leave, and going on from there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import numpy as np
import pandas
import pytest
import soundfile
from embed_rows import (
    SUFFIXES,
    assert_same,
    embed,
    expected_table,
    small_pieces,
    table,
)

from hear_msm_mae import model as engine
from hear_msm_mae import timeline
from hear_msm_mae.embed import store
from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.formats.arrays import Npz
from hear_msm_mae.embed.store import Store
from hear_msm_mae.files import interrupts_held

ROOT = Path(__file__).parents[2]


PIECE_SECONDS = 20.8


def command(output: Path, *arguments: object) -> list[str]:
    return ["embed", "-o", str(output), *map(str, arguments)]


def in_small_pieces(words: list[str], limit: int = resource.RLIM_INFINITY) -> None:
    """`forked.hear_msm_mae`, with results that are stored every `PIECE_SECONDS` of audio.

    Args:
        limit: of the size of files, in bytes.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    timeline.PIECE_FRAMES = engine.CPU_FRAMES = round(100 * PIECE_SECONDS)
    store.FLUSH_SECONDS = -1.0
    forked.hear_msm_mae(words)


def started(words: list[str], folder: Path) -> BaseProcess:
    logs = folder / "stdout", folder / "stderr"
    return forked.start(in_small_pieces, words, cwd=ROOT, out=logs[0], err=logs[1])


def partial(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def lines(output: Path) -> int:
    """Stretches of rows that are stored."""
    journal = partial(output) / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for(process: BaseProcess, condition, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        assert process.is_alive(), (folder / "stderr").read_text()
        time.sleep(0.002)


@pytest.mark.parametrize("options", [["--timestamps"], []], ids=str)
def test_a_killed_run_continues_in_the_middle_of_a_file(tmp_path, tiny_file, tiny_model, options):
    """SIGKILL in the middle of a long file behind many short ones, then the same command again."""
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(20):
        soundfile.write(tmp_path / f"in/{i:02}.wav", generator.uniform(-0.1, 0.1, 32000), 16000)
    second = generator.uniform(-0.1, 0.1, 16000)
    soundfile.write(tmp_path / "in/long.wav", np.tile(second, 300), 16000)
    output = tmp_path / "out.npz"
    run = command(output, tmp_path / "in", "-w", tiny_file, *options)
    process = started(run, tmp_path)
    sums = partial(output) / "open.npz"
    wait_for(process, lambda: lines(output) > 24 if options else sums.exists(), tmp_path)
    process.kill()
    process.join()
    before = lines(output)
    assert before >= 20
    assert not output.exists()
    second_run = forked.run(in_small_pieces, run, cwd=ROOT)
    assert second_run.returncode == 0, second_run.stderr
    assert "21 of 21 files" in second_run.stdout
    # It went on inside the long file, behind what was stored.
    hours = float(second_run.stdout.split(" hours")[0].split()[-1])
    stored = PIECE_SECONDS * (before - 20 if options else 1)
    assert hours <= (300 - stored) / 3600 + 0.01
    assert not partial(output).exists()
    expected = expected_table(tmp_path / "in", tiny_model, timestamps=bool(options))
    assert_same(table(output), expected)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_ctrl_c_writes_the_output_and_says_how_to_go_on(tmp_path, tiny_file, suffix):
    """What is complete is in the output; the same command does the rest, in every format."""
    second = np.linspace(-0.1, 0.1, 16000)
    for name, seconds in (("short", 3), ("long", 200)):
        soundfile.write(tmp_path / f"{name}.wav", np.tile(second, seconds), 16000)
    output = tmp_path / f"out{suffix}"
    files = tmp_path / "short.wav", tmp_path / "long.wav"
    run = command(output, *files, "-w", tiny_file)
    process = started(run, tmp_path)
    wait_for(process, lambda: (partial(output) / "open.npz").exists(), tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    err = (tmp_path / "stderr").read_text()
    assert "interrupted; repeat the command to continue" in err
    assert "Traceback" not in err
    read = pandas.read_csv if suffix == ".csv" else pandas.read_parquet
    assert read(output)["path"].tolist() == [str(files[0])]
    second_run = forked.run(in_small_pieces, run, cwd=ROOT)
    assert second_run.returncode == 0, second_run.stderr
    assert "2 of 2 files" in second_run.stdout
    assert "1 of them done before" in second_run.stdout
    assert read(output)["path"].tolist() == list(map(str, files))
    assert not partial(output).exists()


def test_ctrl_c_while_results_are_stored(recordings, tiny_model, tmp_path, monkeypatch):
    """They are stored to their end, then the run stops, and the next one continues behind them."""
    output = tmp_path / "out.parquet"
    add = Store.add

    def interrupted(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        add(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(output, recordings, tiny_model)
    assert len(table(output)) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    summary = embed(output, recordings, tiny_model)
    assert (summary.done, summary.earlier) == (10, 1)
    assert_same(table(output), expected_table(recordings, tiny_model))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_the_output_is_brought_up_to_date_meanwhile(
    recordings, tiny_model, tmp_path, suffix, monkeypatch
):
    """Also when it held rows before, which lie elsewhere in it after each time."""
    output, seen = tmp_path / f"out{suffix}", []
    some = [recordings / name for name in ("5.wav", "3.wav")]
    expected = expected_table(recordings, tiny_model, timestamps=True)
    if suffix != ".csv":
        embed(output, some, tiny_model, timestamps=True)
    small_pieces(monkeypatch)
    format_ = type(format_of(output))
    write = format_.write

    def noted(self, path, content):
        write(self, path, content)
        seen.append(len(content.recordings))

    monkeypatch.setattr(format_, "write", noted)
    embed(output, recordings, tiny_model, timestamps=True, flush_minutes=1e-9)
    assert len(set(seen)) >= 8
    if suffix == ".csv":
        rows = pandas.read_csv(output)
        assert rows["path"].tolist() == [row[0] for row in expected]
        found = rows[[f"e{i}" for i in range(160)]].to_numpy()
        np.testing.assert_allclose(found, [row[4] for row in expected], atol=1e-5)
    else:
        assert_same(table(output), expected)


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


@contextmanager
def suppress_only(error: type[Exception], message: str):
    """The error need not come, but if it does, with this message."""
    try:
        yield
    except error as found:
        if message not in str(found):
            raise


@contextmanager
def full_disk(limit: int):
    """Files may not grow beyond a limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("suffix", "limit"), [(".parquet", 9000), (".npz", 9000), (".h5", 3000)])
@pytest.mark.parametrize("options", [{"timestamps": True}, {}], ids=str)
def test_no_room_for_the_output(
    recordings, tiny_model, tmp_path, monkeypatch, suffix, limit, options
):
    """Some results fit, or not even those; nothing is lost."""
    small_pieces(monkeypatch)
    output = tmp_path / f"out{suffix}"
    message = r"cannot be written: File too large;.*make room and repeat the command$"
    with full_disk(limit if options else limit // 3), pytest.raises(OSError, match=message):
        embed(output, recordings, tiny_model, **options)
    assert not output.exists()
    assert embed(output, recordings, tiny_model, **options).done == 10
    assert_same(table(output), expected_table(recordings, tiny_model, **options))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_lost_when_the_disk_is_full_at_any_moment(
    recordings, tiny_model, tmp_path, suffix
):
    """Whichever part of the output is the first that does not fit."""
    whole, sources = tmp_path / f"whole{suffix}", [recordings / f"{i}.wav" for i in (0, 3, 1)]
    embed(whole, sources, tiny_model, timestamps=True)
    expected = table(whole)
    files = [x for x in (whole, *whole.rglob("*")) if x.is_file()]
    largest = max(file.stat().st_size for file in files)
    message = "make room and repeat the command"
    for share in (0.3, 0.7, 0.97, 0.999):
        output = tmp_path / f"{round(1000 * share)}{suffix}"
        with full_disk(int(share * largest)), suppress_only(OSError, message):
            embed(output, sources, tiny_model, timestamps=True)
        assert embed(output, sources, tiny_model, timestamps=True).done == 3
        assert_same(table(output), expected)


def test_hdf5_on_a_full_disk_does_not_crash_at_the_end(recordings, tiny_file, tmp_path):
    """It cannot close a file there, and would try again when the process ends."""
    run = command(tmp_path / "out.h5", recordings / "3.wav", "-w", tiny_file)
    result = forked.run(in_small_pieces, run, 4000, cwd=ROOT)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "cannot be written: File too large" in result.stderr


def test_an_output_that_is_not_whole_is_found_out(recordings, tiny_model, tmp_path, monkeypatch):
    """Whatever the reason; what was computed is kept."""
    output = tmp_path / "out.npz"
    with monkeypatch.context() as patch:
        patch.setattr(Npz, "write", lambda self, path, content: path.write_bytes(b"PK"))
        with pytest.raises(OSError, match="cannot be read back"):
            embed(output, recordings, tiny_model)
    output.unlink()
    assert embed(output, recordings, tiny_model).earlier == 10
    assert_same(table(output), expected_table(recordings, tiny_model))


@pytest.mark.parametrize("name", ["rows.bin", "journal.jsonl"])
def test_room_for_a_part_and_more_a_moment_later(
    recordings, tiny_model, tmp_path, monkeypatch, name
):
    """What a full disk took of a stretch of rows is not left among the others."""
    output, left = tmp_path / "out.npz", [3]
    original = store.append

    def full(path, end, parts):
        if path.name == name:
            left[0] -= 1
            if not left[0]:
                whole = b"".join(map(bytes, parts))
                original(path, end, [whole[: len(whole) // 2]])
                raise OSError(28, "No space left on device")
        original(path, end, parts)

    small_pieces(monkeypatch)
    monkeypatch.setattr(store, "append", full)
    with pytest.raises(OSError, match="No space left on device"):
        embed(output, recordings, tiny_model, timestamps=True)
    expected = expected_table(recordings, tiny_model, timestamps=True)
    held = table(output)  # written when there was room again
    assert 0 < len(held) < len(expected)
    assert_same(held, expected[: len(held)])
    embed(output, recordings, tiny_model, timestamps=True)
    assert_same(table(output), expected)


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
        run = command(output, recordings, "-w", tiny_file, "--timestamps")
        result = forked.run(in_small_pieces, run, cwd=ROOT)
        assert result.returncode == 2
        assert f"error: {output} cannot be written: No space left on device" in result.stderr
        assert lines(output) >= 1
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        again = forked.run(in_small_pieces, run, cwd=ROOT)
        assert "10 of 10 files" in again.stdout, again.stderr
        assert "done before" in again.stdout
        assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
