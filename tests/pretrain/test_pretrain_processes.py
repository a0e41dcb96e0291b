"""Real processes: two of them see what one sees, and kills do no harm."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import soundfile
import torch
import toy_corpus
from toy_corpus import ToyCorpus, quick
from toy_runs import identical, newest, scalars

from hear_msm_mae.corpus.prepare import prepare
from hear_msm_mae.pretrain import snapshots
from hear_msm_mae.pretrain.train import pretrain

PROGRAM = str(Path(__file__).parents[1] / "toy_corpus.py")
PYTHON = [sys.executable]
TORCHRUN = [*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
    "GLOO_SOCKET_IFNAME": "lo",
}


def train(words, environment):
    """The training program in a fork."""
    os.environ.update(environment)
    sys.argv = ["toy_corpus", *words]
    sys.exit(toy_corpus.main())


def words_of(**changes):
    return [f"{key}={value}" for key, value in changes.items()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(probe.getsockname()[1])


def run_two(folder, **changes):
    """Two forks with the environment that torchrun gives its processes."""
    common = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
    }
    words, processes = words_of(**changes), []
    for rank in "01":
        out, err = folder / f"out{rank}", folder / f"err{rank}"
        own = common | {"RANK": rank, "LOCAL_RANK": rank}
        processes.append(forked.start(train, words, own, cwd=folder, out=out, err=err))
    for rank, process in enumerate(processes):
        process.join()
        assert process.exitcode == 0, (folder / f"err{rank}").read_text()


def start(launcher, run_dir, **changes):
    """The training program, in a process group of its own."""
    port = {"MASTER_PORT": free_port()} if changes.get("devices", 1) != 1 else {}
    return subprocess.Popen(
        [*launcher, PROGRAM, *words_of(run_dir=run_dir, **changes)],
        env=ENVIRONMENT | port,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def run(launcher, run_dir, **changes):
    status, output = finish(start(launcher, run_dir, **changes))
    assert status == 0, output


def wait_for_step(run_dir, step, process):
    """Until a checkpoint of at least that step exists."""
    deadline = time.monotonic() + 240
    while not any(int(p.stem[5:]) >= step for p in snapshots.checkpoints(run_dir)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def kill_group(process):
    """kill -9 for all processes of this run, and only these."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.usefixtures("small_and_alone")
def test_two_processes_follow_one(tmp_path):
    """Loss curve to 1e-5 relative over 20 steps; weights within a tolerance.

    In float32 the two sum the same gradients in another order. Adam divides a gradient by its
    own size, so where a gradient is near zero that rounding decides the sign of a whole step:
    single weights may be off by up to lr per step. Hence the bound: no weight is off by more
    than the sum of the learning rates, and the mean deviation stays below a thousandth of it.
    """
    settings = {"steps": 20, "log_steps": 1, "base_lr": 0.001, "batch": 16}
    pretrain(quick(tmp_path / "one", **settings), corpus=ToyCorpus())
    run_two(tmp_path, run_dir=tmp_path / "two", **settings)
    one, two = scalars(tmp_path / "one"), scalars(tmp_path / "two")
    assert list(one["loss"]) == list(range(1, 21))
    for step, loss in one["loss"].items():
        assert two["loss"][step] == pytest.approx(loss, rel=1e-5)
    first, second = newest(tmp_path / "one").model, newest(tmp_path / "two").model
    moved = sum(one["lr"].values())
    difference = torch.cat([(first[k] - second[k]).abs().flatten() for k in first])
    assert difference.max() <= moved
    assert difference.mean() <= 1e-3 * moved


@pytest.mark.slow
def test_torchrun_starts_the_command(tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(64000)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "noise.wav", wave, 16000)
    prepare([tmp_path / "audio"], tmp_path / "corpus", workers=0, progress=False)
    command = [*TORCHRUN, "-m", "hear_msm_mae", "pretrain", "tiny-smoke", "steps=2", "batch=4"]
    command += [f"corpus={tmp_path / 'corpus'}", f"run_dir={tmp_path / 'run'}", "depth=1"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "step 2 of 2" in done.stdout
    assert newest(tmp_path / "run").progress.step == 2


@pytest.mark.usefixtures("small_and_alone")
def test_a_terminated_run_continues_with_the_same_bits(tmp_path):
    """SIGTERM and SIGINT: a checkpoint of the current step, status 128 + n."""
    settings = {"steps": 160, "checkpoint_steps": 1000}
    pretrain(quick(tmp_path / "whole", **settings), corpus=ToyCorpus())
    words = words_of(run_dir=tmp_path / "cut", **settings)
    stops = []
    out, err = tmp_path / "out", tmp_path / "err"
    for number in (signal.SIGTERM, signal.SIGINT):
        err.unlink(missing_ok=True)
        process = forked.start(train, words, {}, cwd=tmp_path, out=out, err=err)
        # Until the report at the start of the loop.
        while not (err.exists() and "step" in err.read_text()):
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == 128 + number, err.read_text()
        stops.append(newest(tmp_path / "cut").progress.step)
    assert 0 < stops[0] < stops[1] < 160
    pretrain(quick(tmp_path / "cut", **settings), corpus=ToyCorpus())
    assert identical(newest(tmp_path / "cut"), newest(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_run_goes_on_with_the_same_bits(tmp_path, processes):
    """kill -9 at random moments, also while a checkpoint is being written."""
    settings = {"steps": 150, "checkpoint_steps": 1, "keep_last": 2, "devices": processes}
    run(PYTHON, tmp_path / "whole", **settings)
    moments = random.Random(processes)
    kills = 0
    for step in (1, 30, 60):
        process = start(PYTHON, tmp_path / "cut", **settings)
        wait_for_step(tmp_path / "cut", step, process)
        time.sleep(moments.uniform(0, 0.2))
        kills += process.poll() is None
        kill_group(process)
    run(PYTHON, tmp_path / "cut", **settings)
    assert kills >= 2
    assert identical(newest(tmp_path / "cut"), newest(tmp_path / "whole"))
    assert not list((tmp_path / "cut" / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_one_process_goes_on_with_the_run_of_two(tmp_path):
    settings = {"steps": 40, "log_steps": 1, "checkpoint_steps": 20, "base_lr": 0.001}
    run(PYTHON, tmp_path / "one", **settings)
    run(TORCHRUN, tmp_path / "two", **settings)
    snapshots.checkpoints(tmp_path / "two")[0].unlink()
    run(PYTHON, tmp_path / "two", **settings)
    one, two = scalars(tmp_path / "one")["loss"], scalars(tmp_path / "two")["loss"]
    assert two[40] == pytest.approx(one[40], rel=1e-3)


@pytest.mark.slow
def test_several_processes_have_no_common_clock(tmp_path):
    status, output = finish(start(TORCHRUN, tmp_path / "run", minutes=1, steps="null"))
    assert status != 0
    assert "minutes=1.0 with 2 processes" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_nan_in_one_process_is_skipped_by_both(tmp_path):
    settings = {"steps": 20, "max_bad_steps": 20, "poisoned": "[2]"}
    run(PYTHON, tmp_path / "one", **settings)
    run(TORCHRUN, tmp_path / "two", **settings)
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    assert 0 < two.progress.skipped == one.progress.skipped
    assert all(torch.isfinite(tensor).all() for tensor in two.model.values())


@pytest.mark.slow
def test_terminating_torchrun_leaves_a_checkpoint(tmp_path):
    process = start(TORCHRUN, tmp_path / "run", steps=100_000, checkpoint_steps=20)
    wait_for_step(tmp_path / "run", 20, process)
    process.terminate()
    finish(process)
    assert newest(tmp_path / "run").progress.step % 20 != 0  # not one of the regular ones
