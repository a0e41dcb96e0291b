"""Corpus preparation: right frames, what is left out, re-runs, refusals; all in this process."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hear_msm_mae.audio import read_audio
from hear_msm_mae.corpus import index
from hear_msm_mae.corpus.bank import Bank
from hear_msm_mae.corpus.extract import Extractor, stretches
from hear_msm_mae.corpus.prepare import prepare
from hear_msm_mae.log_mel import LogMel

EXAMPLES = Path(__file__).parents[2] / "examples"


def noise(seconds, level=0.1, seed=0, rate=16000, channels=1):
    wave = np.random.default_rng(seed).uniform(-1, 1, (int(seconds * rate), channels))
    return (level * wave).astype(np.float32)


def write(path, wave, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


@pytest.fixture
def source(tmp_path):
    """Four files of other formats, rates and channel counts in two folders and the root."""
    folder = tmp_path / "source"
    write(folder / "birds" / "a.wav", noise(1.0, seed=1, rate=44100, channels=2), 44100)
    write(folder / "birds" / "deep" / "b.flac", noise(0.8, seed=2, rate=8000), 8000)
    write(folder / "speech" / "c.ogg", noise(1.5, seed=3, rate=22050), 22050)
    write(folder / "d.wav", noise(0.5, seed=4))
    return folder


def run(source, dest, **options):
    return prepare([source], dest, **{"workers": 0, "progress": False, **options})


def rows(dest, name="manifest-*.csv"):
    [path] = dest.glob(name)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def crop(bank, clip, start, length):
    """(f, t) float16."""
    return bank.crops(torch.tensor([clip]), torch.tensor([start]), length)[0].T.numpy()


def reasons(dest):
    return {row["path"]: row["reason"] for row in rows(dest, "skipped.csv")}


def content(dest):
    """Everything but the times of the files."""
    return {p.name: p.read_bytes() for p in sorted(dest.iterdir()) if not p.name.startswith(".")}


# ---------------------------------------------------------------------------------------------
# What is written
# ---------------------------------------------------------------------------------------------
def test_frames_are_those_of_the_front_end(source, tmp_path):
    """Independent path: the whole file at once, in float32, through LogMel."""
    run(source, tmp_path / "corpus")
    corpus = Bank.open(tmp_path / "corpus")
    assert len(corpus) == 4
    for clip, row in enumerate(rows(tmp_path / "corpus")):
        waveform = torch.from_numpy(read_audio(source / row["path"]))[None]
        expected = LogMel().log_mel(waveform)[0].numpy()
        frames = crop(corpus, clip, 0, int(row["frames"]))
        assert frames.dtype == np.float16
        np.testing.assert_allclose(frames, expected, rtol=2**-10, atol=2e-3)
        np.testing.assert_array_equal(crop(corpus, clip, 7, 20), frames[:, 7:27])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("music_*")), ids=lambda p: p.name)
def test_blocks_leave_no_seam(path, tmp_path, monkeypatch):
    """A real file decoded half a second at a time."""
    from hear_msm_mae.corpus import extract

    monkeypatch.setattr(extract, "_BLOCK_SECONDS", 0.5)
    (tmp_path / "source").mkdir()
    shutil.copy(path, tmp_path / "source")
    run(tmp_path / "source", tmp_path / "corpus", silence_dbfs=float("-inf"))
    corpus = Bank.open(tmp_path / "corpus")
    expected = LogMel().log_mel(torch.from_numpy(read_audio(path))[None])[0].numpy()
    assert corpus.lengths.tolist() == [expected.shape[1]]
    np.testing.assert_allclose(
        crop(corpus, 0, 0, expected.shape[1]), expected, rtol=2**-10, atol=2e-3
    )


def test_manifest_and_statistics(source, tmp_path):
    report = run(source, tmp_path / "corpus", licence="CC0-1.0")
    listed = {row["path"]: row for row in rows(tmp_path / "corpus")}
    seconds = {"birds/a.wav": 1.0, "birds/deep/b.flac": 0.8, "speech/c.ogg": 1.5, "d.wav": 0.5}
    assert listed.keys() == seconds.keys()
    for path, row in listed.items():
        assert int(row["frames"]) == 1 + round(16000 * seconds[path]) // 160
        assert row["sha256"] == hashlib.sha256((source / path).read_bytes()).hexdigest()
        assert row["licence"] == "CC0-1.0"
        assert row["root"] == "source"
    assert [listed[p]["source"] for p in seconds] == ["birds", "birds", "speech", "source"]
    values = np.fromfile(tmp_path / "corpus" / "frames.f16", np.float16).astype(np.float64)
    values = values.reshape(sum(int(row["frames"]) for row in listed.values()), 80)
    corpus = Bank.open(tmp_path / "corpus")
    for holder in (report, corpus):
        assert holder.mean == pytest.approx(values.mean(), rel=1e-9)
        assert holder.std == pytest.approx(values.std(), rel=1e-9)
        assert holder.hours == pytest.approx(len(values) / 360_000)
    summary = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert (summary["mean"], summary["std"]) == (corpus.mean, corpus.std)
    assert summary["complete"]
    assert (report.files, report.prepared, report.unchanged, report.clips) == (4, 4, 0, 4)


def test_workers_change_nothing(source, tmp_path):
    run(source, tmp_path / "here")
    run(source, tmp_path / "there", workers=2)
    assert content(tmp_path / "here") == content(tmp_path / "there")


def test_frames_are_read_on_any_device(source, tmp_path, device):
    run(source, tmp_path / "corpus")
    bank = Bank.open(tmp_path / "corpus")
    moved = bank.to(device)
    clips, first = torch.tensor([3, 0, 3]), torch.tensor([2, 50, 0])
    crops = moved.crops(clips.to(device), first.to(device), 40)
    assert torch.equal(crops.cpu(), bank.crops(clips, first, 40))
    assert (len(moved), moved.n_mels, moved.device.type) == (4, 80, device.type)


def test_log_mel_of_another_device_is_the_same(source, tmp_path, device):
    run(source, tmp_path / "cpu")
    run(source, tmp_path / "device", device=str(device))
    one, two = (Bank.open(tmp_path / name).frames.float() for name in ("cpu", "device"))
    torch.testing.assert_close(one, two, rtol=2**-10, atol=2e-3)


def test_frames_outside_a_clip_are_silence(source, tmp_path):
    run(source, tmp_path / "corpus")
    bank = Bank.open(tmp_path / "corpus")
    for clip, length in enumerate(bank.lengths.tolist()):
        found = crop(bank, clip, -5, length + 9)
        assert (found[:, :5] == np.float16(np.log(2**-23))).all()
        assert (found[:, -4:] == np.float16(np.log(2**-23))).all()
        np.testing.assert_array_equal(found[:, 5:-4], crop(bank, clip, 0, length))


# ---------------------------------------------------------------------------------------------
# What is left out
# ---------------------------------------------------------------------------------------------
def test_report_of_what_is_left_out(source, tmp_path):
    (source / "garbage.wav").write_bytes(b"not audio at all")
    (source / "empty.flac").write_bytes(b"")
    whole = write(source / "z-cut.flac", noise(2.0, seed=9)).read_bytes()
    (source / "z-cut.flac").write_bytes(whole[:60])
    write(source / "zeros.wav", np.zeros(32000, np.float32))
    write(source / "hum.wav", noise(2.0, level=1e-3))  # -65 dBFS
    write(source / "constant.wav", np.full(32000, 0.5, np.float32))
    write(source / "click.wav", noise(0.1))
    shutil.copy(source / "d.wav", source / "speech" / "copy.wav")
    report = run(source, tmp_path / "corpus")
    assert {
        path: text.partition(":")[0] for path, text in reasons(tmp_path / "corpus").items()
    } == {
        "garbage.wav": "unreadable",
        "empty.flac": "unreadable",
        "z-cut.flac": "unreadable",
        "zeros.wav": "silent",
        "hum.wav": "silent",
        "constant.wav": "silent",
        "click.wav": "short",
        "speech/copy.wav": "duplicate",
    }
    assert "of source/d.wav" in reasons(tmp_path / "corpus")["speech/copy.wav"]
    assert report.skipped == {"unreadable": 3, "silent": 3, "short": 1, "duplicate": 1}
    assert report.prepared == 4


def test_a_disk_that_fails_to_read_costs_one_file(source, tmp_path, monkeypatch):
    from hear_msm_mae.corpus import extract

    def failing(path, seconds, **options):
        if path.name == "c.ogg":
            raise OSError(5, "Input/output error")
        yield from stream(path, seconds, **options)

    stream = extract.stream_audio
    monkeypatch.setattr(extract, "stream_audio", failing)
    assert run(source, tmp_path / "corpus").skipped == {"unreadable": 1}
    assert reasons(tmp_path / "corpus") == {"speech/c.ogg": "unreadable: Input/output error"}


def test_long_silence_is_cut_out_and_short_pauses_stay(tmp_path):
    tone, pause, gap = noise(3.0), np.zeros((24000, 1), np.float32), noise(5.0, level=3e-4)
    write(tmp_path / "source" / "a.wav", np.concatenate([tone, gap, tone, pause, tone]))
    run(tmp_path / "source", tmp_path / "corpus")
    listed = [(int(r["start"]), int(r["frames"])) for r in rows(tmp_path / "corpus")]
    assert listed == [(0, 300), (800, 751)]  # 3 s; then 3 + 1.5 + 3 s and the frame at the end


@pytest.mark.parametrize("seed", range(20))
def test_stretches_are_what_long_silence_leaves(seed):
    """By a plain loop: a frame is dropped when it is in a run of four or more silent windows."""
    random = np.random.default_rng(seed)
    silent = random.random(30) < random.choice([0.2, 0.6, 0.9])
    silent[random.integers(30)] = False
    dropped = np.zeros(30, bool)
    for i in range(27):
        if silent[i : i + 4].all():
            dropped[i : i + 4] = True
    frames = np.zeros(1501, bool)
    for start, stop in stretches(silent, 1501):
        assert not frames[start:stop].any()
        frames[start:stop] = True
    expected = np.append(np.repeat(~dropped, 50), not dropped[-1])
    np.testing.assert_array_equal(frames, expected)


# ---------------------------------------------------------------------------------------------
# Running again
# ---------------------------------------------------------------------------------------------
def test_second_run_reads_nothing_again(source, tmp_path, monkeypatch):
    run(source, tmp_path / "corpus")
    before = content(tmp_path / "corpus")
    monkeypatch.setattr(Extractor, "__call__", lambda *_: pytest.fail("read again"))
    report = run(source, tmp_path / "corpus")
    assert (report.prepared, report.unchanged) == (0, 4)
    assert content(tmp_path / "corpus") == before


def test_new_changed_and_repaired_files(source, tmp_path):
    dest = tmp_path / "corpus"
    (source / "broken.wav").write_bytes(b"x")
    run(source, dest)
    first = Bank.open(dest)
    write(source / "speech" / "new.wav", noise(1.0, seed=7))
    write(source / "d.wav", noise(2.0, seed=8))
    write(source / "broken.wav", noise(0.7, seed=9))
    os.utime(source / "birds" / "a.wav")  # same content, other time
    (source / "speech" / "c.ogg").unlink()
    report = run(source, dest)
    assert report.prepared == 3
    listed = {row["path"]: int(row["frames"]) for row in rows(dest)}
    assert listed == {
        "birds/a.wav": 101,
        "birds/deep/b.flac": 81,
        "speech/c.ogg": 151,  # gone from the source, kept in the corpus
        "speech/new.wav": 101,
        "d.wav": 201,
        "broken.wav": 71,
    }
    assert reasons(dest) == {}
    second = Bank.open(dest)
    assert second.fingerprint != first.fingerprint
    clip = [row["path"] for row in rows(dest)].index("d.wav")
    expected = LogMel().log_mel(torch.from_numpy(read_audio(source / "d.wav"))[None])[0].numpy()
    np.testing.assert_allclose(crop(second, clip, 0, 201), expected, rtol=2**-10, atol=2e-3)


def test_second_source_of_the_same_name_gets_a_number(source, tmp_path):
    other = tmp_path / "elsewhere" / "source"
    write(other / "birds" / "e.wav", noise(1.0, seed=20))
    run(source, tmp_path / "corpus", licence="A")
    prepare([other], tmp_path / "corpus", workers=0, licence="B", progress=False)
    *others, added = rows(tmp_path / "corpus")
    assert (added["root"], added["path"], added["licence"]) == ("source-2", "birds/e.wav", "B")
    assert added["source"] == "birds"  # weighted with the other birds
    assert [row["licence"] for row in others] == ["A"] * 4


# ---------------------------------------------------------------------------------------------
# Refusals: before anything is written
# ---------------------------------------------------------------------------------------------
def test_bad_sources_are_refused(source, tmp_path):
    dest = tmp_path / "corpus"
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "notes.txt").write_text("no audio")
    cases = [
        ([tmp_path / "none"], FileNotFoundError, "source folder .*none does not exist"),
        ([tmp_path / "hollow"], ValueError, "hollow holds no audio files"),
        ([source / "d.wav"], ValueError, "d.wav is not a folder"),
        ([], ValueError, "at least one folder"),
    ]
    for sources, error, message in cases:
        with pytest.raises(error, match=message):
            prepare(sources, dest, workers=0, progress=False)
        assert not dest.exists()
    for inside in (source / "corpus", source, tmp_path):
        with pytest.raises(ValueError, match="must not lie in each other"):
            run(source, inside)
    with pytest.raises(ValueError, match="n_mels and workers must be positive"):
        run(source, dest, n_mels=0)
    with pytest.raises(ValueError, match="device 'cuda:99' is not usable here"):
        run(source, dest, device="cuda:99")
    assert not dest.exists()


def test_folder_that_is_something_else_is_refused(source, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"picture")
    with pytest.raises(ValueError, match="photos exists and is not a corpus"):
        run(source, tmp_path / "photos")
    assert content(tmp_path / "photos") == {"a.jpg": b"picture"}


def test_nothing_usable_is_an_error(tmp_path):
    write(tmp_path / "source" / "zeros.wav", np.zeros(32000, np.float32))
    with pytest.raises(ValueError, match=r"none of 1 files could be used; see .*skipped\.csv"):
        run(tmp_path / "source", tmp_path / "corpus")
    with pytest.raises(ValueError, match="holds no clips"):
        Bank.open(tmp_path / "corpus")


def test_other_settings_of_the_front_end_are_refused(source, tmp_path):
    dest = tmp_path / "corpus"
    run(source, dest, n_mels=64)
    before = content(dest)
    with pytest.raises(ValueError, match="n_mels = 64, not 80"):
        run(source, dest)
    with pytest.raises(ValueError, match=r"silence_dbfs = -60\.0, not -40\.0"):
        run(source, dest, n_mels=64, silence_dbfs=-40)
    assert content(dest) == before
    summary = json.loads((dest / "corpus.json").read_text())
    summary["front_end"]["f_min"] = 20.0
    (dest / "corpus.json").write_text(json.dumps(summary))
    for action in (lambda: Bank.open(dest), lambda: run(source, dest, n_mels=64)):
        with pytest.raises(ValueError, match=r"made with f_min = 20\.0, not 50\.0"):
            action()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: os.truncate(d / "frames.f16", 5000), r"frames\.f16 is missing or damaged"),
        (lambda d: (d / "frames.f16").unlink(), r"frames\.f16 is missing or damaged"),
        (lambda d: flip(d / "frames.f16", 30_000), r"frames\.f16 is missing or damaged"),
        (lambda d: flip(next(d.glob("m*.csv")), 300), r"manifest-\w+\.csv is missing or damaged"),
        (lambda d: next(d.glob("m*.csv")).unlink(), r"manifest-\w+\.csv is missing or damaged"),
        (lambda d: (d / "corpus.json").write_text("{"), r"corpus\.json is damaged"),
        (lambda d: (d / "corpus.json").write_text('{"format": "x"}'), "format 'x'"),
        (
            lambda d: (d / "corpus.json").write_text(
                '{"format":"hear_msm_mae corpus","version":1}'
            ),
            "version 1, this release reads .* version 2; run `hear-msm-mae prepare` again",
        ),
    ],
)
def test_damaged_corpus_is_refused(source, tmp_path, damage, message):
    run(source, tmp_path / "corpus")
    damage(tmp_path / "corpus")
    with pytest.raises(ValueError, match=message):
        Bank.open(tmp_path / "corpus")


def flip(path, position):
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, 25_000),
        lambda path: os.truncate(path, 25_000),
        lambda path: path.unlink(),
    ],
    ids=["flipped", "truncated", "deleted"],
)
def test_damaged_frames_are_repaired_by_the_next_run(source, tmp_path, monkeypatch, damage):
    """The same clips, so that runs on it go on; only files in a damaged shard are read again."""
    monkeypatch.setattr(index, "SHARD_FRAMES", 60)  # 380 frames in 7 shards
    dest = tmp_path / "corpus"
    run(source, dest, licence="A")
    before = Bank.open(dest)
    expected = [crop(before, clip, 0, length) for clip, length in enumerate(before.lengths)]
    damage(dest / "frames.f16")
    with pytest.raises(ValueError, match="prepare` again to repair"):
        Bank.open(dest)
    report = run(source, dest)
    assert 0 < report.prepared <= len(before)
    after = Bank.open(dest)
    assert (after.fingerprint, after.sources) == (before.fingerprint, before.sources)
    assert {row["licence"] for row in rows(dest)} == {"A"}
    for clip, frames in enumerate(expected):
        np.testing.assert_array_equal(crop(after, clip, 0, frames.shape[1]), frames)
    assert run(source, dest).unchanged == len(before)


def test_damaged_frames_whose_file_is_gone_are_reported(source, tmp_path, caplog):
    dest = tmp_path / "corpus"
    run(source, dest)
    (source / "d.wav").unlink()
    flip(dest / "frames.f16", 1000)
    run(source, dest)
    assert "1 files with damaged frames were removed" in caplog.text
    assert "source/d.wav" in caplog.text
    assert [row["path"] for row in rows(dest)] == [
        "birds/a.wav",
        "birds/deep/b.flac",
        "speech/c.ogg",
    ]
    assert len(Bank.open(dest)) == 3


def test_clips_do_not_depend_on_where_their_frames_lie(source, tmp_path):
    """A corpus that grew in another order is the same one for training."""
    run(source, tmp_path / "whole")
    (tmp_path / "later").mkdir()
    (source / "birds").rename(tmp_path / "later" / "birds")
    run(source, tmp_path / "grown")
    (tmp_path / "later" / "birds").rename(source / "birds")
    run(source, tmp_path / "grown")
    whole, grown = Bank.open(tmp_path / "whole"), Bank.open(tmp_path / "grown")
    assert whole.fingerprint == grown.fingerprint
    assert not torch.equal(whole.starts, grown.starts)
    for clip, length in enumerate(whole.lengths.tolist()):
        np.testing.assert_array_equal(crop(whole, clip, 0, length), crop(grown, clip, 0, length))


def test_missing_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist; make one with .*prepare"):
        Bank.open(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds no corpus"):
        Bank.open(tmp_path)
