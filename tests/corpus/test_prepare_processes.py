"""Corpus preparation that is killed, interrupted, or out of disk, in real processes."""

import os
import random
import resource
import signal
import sys
import time

import forked
import numpy as np
import pytest
import soundfile
import torch

from hear_msm_mae.corpus import writer
from hear_msm_mae.corpus.bank import Bank
from hear_msm_mae.corpus.index import read_summary
from hear_msm_mae.corpus.prepare import prepare

FILES = 60


def prepare_slowly(source, dest, limit, delay):
    """With an index that is written after every file.

    Args:
        limit: the largest size of each file, in bytes; 0 for none.
        delay: seconds of waiting for each file.
    """
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    writer.COMMIT_SECONDS, writer.COMMIT_SHARE = 0.0, 1.0
    take = writer.CorpusWriter.take

    def slowly(self, *arguments):
        time.sleep(delay)
        take(self, *arguments)

    writer.CorpusWriter.take = slowly
    try:
        prepare([source], dest, workers=1, progress=False)
    except OSError as error:
        sys.exit(str(error))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "source"
    folder.mkdir()
    for i in range(FILES):
        wave = 0.1 * np.random.default_rng(i).standard_normal(16000 + 1600 * (i % 7))
        soundfile.write(folder / f"{i:03d}.wav", wave, 16000)
    return folder


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The corpus of a run that nothing happened to."""
    dest = tmp_path_factory.mktemp("whole") / "corpus"
    prepare([source], dest, workers=0, progress=False)
    return dest


def start(source, dest, limit=0, delay=0.0):
    """A process that leads its group; it writes what it says beside the corpus."""
    out, err = dest.with_name("out"), dest.with_name("err")
    return forked.start(
        prepare_slowly, source, dest, limit, delay, cwd=dest.parent, out=out, err=err
    )


def listed(dest):
    """Clips in the index, 0 before there is one; it must be readable at any moment."""
    return read_summary(dest)["clips"] if (dest / "corpus.json").exists() else 0


def wait_for(process, dest, clips):
    deadline = time.monotonic() + 120
    while listed(dest) < clips:
        assert process.is_alive(), dest.with_name("err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_valid(dest, whole):
    """What is there is a beginning of the whole corpus, and only that is left out."""
    part, full = Bank.open(dest), Bank.open(whole)
    count = len(part)
    assert 0 < count < len(full)
    assert torch.equal(part.lengths, full.lengths[:count])
    frames = int(part.lengths.sum())
    assert torch.equal(part.frames[:frames], full.frames[:frames])
    return count


def check_completed(source, dest, whole, had):
    """A second run does the rest, and the files are byte for byte those of the whole run."""
    report = prepare([source], dest, workers=0, progress=False)
    assert report.unchanged == had
    assert report.prepared == FILES - had
    assert sorted(p.name for p in dest.iterdir()) == sorted(p.name for p in whole.iterdir())
    for path in whole.iterdir():
        assert (dest / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_killed_runs_leave_a_corpus_that_the_next_completes(source, whole, tmp_path):
    """kill -9 at random moments of one preparation after the other."""
    dest = tmp_path / "corpus"
    moments = random.Random(0)
    for clips in (5, 15, 30):
        process = start(source, dest, delay=0.01)
        wait_for(process, dest, clips)
        time.sleep(moments.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        check_valid(dest, whole)
    check_completed(source, dest, whole, listed(dest))


def test_ctrl_c_leaves_a_corpus_that_the_next_completes(source, whole, tmp_path):
    """SIGINT goes to the whole group, as from a terminal."""
    dest = tmp_path / "corpus"
    process = start(source, dest, delay=0.02)
    wait_for(process, dest, 8)
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    errors = (tmp_path / "err").read_text()
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1  # workers do not see it
    check_completed(source, dest, whole, check_valid(dest, whole))


def test_full_disk_leaves_a_corpus_that_the_next_completes(source, whole, tmp_path):
    """A file may not grow beyond a third of the shard (RLIMIT_FSIZE)."""
    dest = tmp_path / "corpus"
    limit = (whole / "frames.f16").stat().st_size // 3
    process = start(source, dest, limit)
    process.join(120)
    assert process.exitcode == 1
    errors = (tmp_path / "err").read_text()
    had = check_valid(dest, whole)
    assert f"it holds {had} files" in errors
    assert "Free some space and run the same command again" in errors
    check_completed(source, dest, whole, had)


@pytest.mark.slow
def test_two_at_once_are_refused(source, tmp_path):
    dest = tmp_path / "corpus"
    process = start(source, dest, delay=0.1)
    wait_for(process, dest, 1)
    with pytest.raises(ValueError, match="another process is preparing"):
        prepare([source], dest, workers=0, progress=False)
    process.kill()
    process.join()
