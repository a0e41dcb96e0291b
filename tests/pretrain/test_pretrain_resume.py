"""Checkpoints: resuming, what is refused, damaged files, signals; all in this process."""

import logging
import signal

import pytest
import torch
from toy_corpus import ToyCorpus, quick
from toy_runs import identical, newest, scalars, snapshot

from hear_msm_mae.pretrain import signals, snapshots, train
from hear_msm_mae.pretrain.train import pretrain

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
    pytest.mark.usefixtures("small_and_alone"),
]


def test_resumed_run_ends_in_the_same_bits(finished, copy):
    outcome = pretrain(quick(copy, checkpoint_steps=4), corpus=ToyCorpus())
    assert outcome.signal is None
    assert identical(newest(copy), newest(finished))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_newest_checkpoint_falls_back(finished, copy, damage, caplog):
    path = snapshots.checkpoints(copy)[0]
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"truncated": data[:-100], "flipped": data, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        pretrain(quick(copy, checkpoint_steps=4), corpus=ToyCorpus())
    assert "trying the checkpoint before it" in caplog.text
    assert path.name in caplog.text
    assert identical(newest(copy), newest(finished))


def test_a_damaged_checkpoint_does_not_push_out_good_ones(copy):
    newest_path, before = snapshots.checkpoints(copy)[:2]
    newest_path.write_bytes(b"x")
    state = snapshots.load(before)
    state.progress.step = 7  # went on from 4
    written = snapshots.save(copy, state, keep_last=1)
    assert snapshots.checkpoints(copy) == [written]
    assert newest_path.with_suffix(".damaged").read_bytes() == b"x"


def test_augmentation_and_scalars_survive_a_resume(tmp_path):
    changes = {"gain_db": 6.0, "tilt_db": 3.0, "mix": 0.4, "reverb": 0.5, "procedural": 0.5}
    settings = quick(tmp_path, log_steps=1, checkpoint_steps=4, **changes)
    pretrain(settings, corpus=ToyCorpus())
    whole = newest(tmp_path)
    snapshots.checkpoints(tmp_path)[0].unlink()
    pretrain(settings, corpus=ToyCorpus())
    assert identical(newest(tmp_path), whole)
    assert sorted(scalars(tmp_path)["loss"]) == list(range(1, 13))


def test_two_runs_in_one_folder(copy):
    with (
        snapshots.locked(copy),
        pytest.raises(ValueError, match="another process trains in run_dir"),
    ):
        pretrain(quick(copy, checkpoint_steps=4), corpus=ToyCorpus())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_in_a_row_are_one(tmp_path, monkeypatch, number):
    """As when a scheduler signals every process and torchrun passes its own on."""
    lr = train._Run.lr

    def signalled(self):
        for _ in range(2 if self.progress.step == 2 else 0):
            signal.raise_signal(number)
        return lr(self)

    monkeypatch.setattr(train._Run, "lr", signalled)
    outcome = pretrain(quick(tmp_path), corpus=ToyCorpus())
    assert (outcome.signal, newest(tmp_path).progress.step) == (number, outcome.step)
    assert outcome.step < 5
    monkeypatch.setattr(signals, "SECOND_CTRL_C_SECONDS", -1.0)
    if number == signal.SIGINT:  # a user's second one ends it at once
        with pytest.raises(KeyboardInterrupt):
            pretrain(quick(tmp_path / "other"), corpus=ToyCorpus())


def test_only_damaged_checkpoints_are_refused(copy):
    for path in snapshots.checkpoints(copy):
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"none of the .* can be read"):
        pretrain(quick(copy), corpus=ToyCorpus())


def test_finished_run_is_left_alone(finished):
    before = snapshot(finished)
    assert pretrain(quick(finished, checkpoint_steps=4), corpus=ToyCorpus()).signal is None
    assert snapshot(finished) == before


def test_last_checkpoints_are_kept(tmp_path):
    pretrain(quick(tmp_path, checkpoint_steps=2, keep_last=2), corpus=ToyCorpus())
    assert [p.name for p in snapshots.checkpoints(tmp_path)] == [
        "step-000000012.pt",
        "step-000000010.pt",
    ]
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 48}, "width was 32 and is now 48"),
        ({"mask_ratio": 0.5}, "mask_ratio was 0.75 and is now 0.5"),
        ({"batch": 16, "seed": 1}, "batch was 8 and is now 16; seed was 0 and is now 1"),
        ({"source_weights": {"a": 2.0}}, "source_weights was"),
        ({"steps": 24}, "steps was 12 and is now 24"),
    ],
)
def test_resuming_another_run_is_refused(copy, changes, message):
    before = snapshot(copy)
    with pytest.raises(ValueError, match=message):
        pretrain(quick(copy, **changes), corpus=ToyCorpus())
    assert snapshot(copy) == before


def test_resuming_with_another_corpus_is_refused(copy):
    before = snapshot(copy)
    with pytest.raises(ValueError, match=r"corpus has other content.*fffffff.*now aaaaaa"):
        pretrain(quick(copy), corpus=ToyCorpus(fingerprint="a" * 64))
    assert snapshot(copy) == before


def test_watching_may_change_on_resume(copy, finished):
    settings = quick(copy, pictures=2, log_steps=1, checkpoint_steps=3, keep_last=9)
    pretrain(settings, corpus=ToyCorpus())
    assert identical(newest(copy), newest(finished))
    assert (copy / "pictures" / "step-000000012.png").stat().st_size > 10_000


def test_global_random_numbers_are_untouched(tmp_path):
    settings = quick(tmp_path, pictures=1, holdout_crops=4, holdout=0.25)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain(settings, corpus=ToyCorpus())
    assert torch.equal(torch.rand(3), expected)


def test_a_full_disk_is_an_os_error_and_keeps_the_checkpoints(copy):
    resource = pytest.importorskip("resource")
    there = snapshots.checkpoints(copy)
    state = snapshots.load(there[0])
    state.progress.step += 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            snapshots.save(copy, state, keep_last=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert snapshots.checkpoints(copy) == there
    assert identical(snapshots.load(there[0]), newest(copy))
