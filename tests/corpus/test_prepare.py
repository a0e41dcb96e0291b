"""Corpus preparation: right frames, what is left out, re-runs, refusals; all in this process."""

import csv
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hear_msm_mae.audio import read_audio
from hear_msm_mae.corpus import writer as writing
from hear_msm_mae.corpus.corpus import Corpus
from hear_msm_mae.corpus.extract import stretches
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


def rows(dest, name="manifest.csv"):
    with open(dest / name, newline="") as file:
        return list(csv.DictReader(file))


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
    corpus = Corpus.open(tmp_path / "corpus")
    assert len(corpus) == 4
    for clip, row in enumerate(rows(tmp_path / "corpus")):
        waveform = torch.from_numpy(read_audio(source / row["path"]))[None]
        expected = LogMel().log_mel(waveform)[0].numpy()
        frames = corpus.read(clip, 0, int(row["frames"]))
        assert frames.dtype == np.float16
        np.testing.assert_allclose(frames, expected, rtol=2**-10, atol=2e-3)
        np.testing.assert_array_equal(corpus.read(clip, 7, 20), frames[:, 7:27])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("music_*")), ids=lambda p: p.name)
def test_blocks_leave_no_seam(path, tmp_path, monkeypatch):
    """A real file decoded half a second at a time."""
    from hear_msm_mae.corpus import extract

    monkeypatch.setattr(extract, "_BLOCK_SECONDS", 0.5)
    (tmp_path / "source").mkdir()
    shutil.copy(path, tmp_path / "source")
    run(tmp_path / "source", tmp_path / "corpus", silence_dbfs=float("-inf"))
    corpus = Corpus.open(tmp_path / "corpus")
    expected = LogMel().log_mel(torch.from_numpy(read_audio(path))[None])[0].numpy()
    assert corpus.clip_frames.tolist() == [expected.shape[1]]
    np.testing.assert_allclose(
        corpus.read(0, 0, expected.shape[1]), expected, rtol=2**-10, atol=2e-3
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
    shards = [np.load(p) for p in sorted((tmp_path / "corpus").glob("frames-*.npy"))]
    values = np.concatenate(shards).astype(np.float64)
    assert values.shape == (sum(int(row["frames"]) for row in listed.values()), 80)
    corpus = Corpus.open(tmp_path / "corpus")
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


def test_shards_are_split_and_read_in_other_processes(source, tmp_path, monkeypatch):
    run(source, tmp_path / "one")
    monkeypatch.setattr(writing, "SHARD_FRAMES", 60)
    run(source, tmp_path / "many")
    one, many = Corpus.open(tmp_path / "one"), Corpus.open(tmp_path / "many")
    assert len(list((tmp_path / "many").glob("frames-*.npy"))) > 2
    assert one.fingerprint == many.fingerprint
    many = pickle.loads(pickle.dumps(many))
    for clip, frames in enumerate(one.clip_frames):
        np.testing.assert_array_equal(one.read(clip, 0, frames), many.read(clip, 0, frames))


@pytest.mark.parametrize(
    ("clip", "start", "length"), [(4, 0, 1), (-1, 0, 1), (0, -1, 5), (0, 0, 10_000)]
)
def test_crops_outside_a_clip_are_refused(source, tmp_path, clip, start, length):
    run(source, tmp_path / "corpus")
    with pytest.raises(IndexError, match=f"clip {clip}"):
        Corpus.open(tmp_path / "corpus").read(clip, start, length)


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
    from hear_msm_mae.corpus import prepare as module

    monkeypatch.setattr(module, "extract", lambda *_, **__: pytest.fail("read again"))
    report = run(source, tmp_path / "corpus")
    assert (report.prepared, report.unchanged) == (0, 4)
    assert content(tmp_path / "corpus") == before


def test_new_changed_and_repaired_files(source, tmp_path):
    dest = tmp_path / "corpus"
    (source / "broken.wav").write_bytes(b"x")
    run(source, dest)
    first = Corpus.open(dest)
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
    second = Corpus.open(dest)
    assert second.fingerprint != first.fingerprint
    clip = [row["path"] for row in rows(dest)].index("d.wav")
    expected = LogMel().log_mel(torch.from_numpy(read_audio(source / "d.wav"))[None])[0].numpy()
    np.testing.assert_allclose(second.read(clip, 0, 201), expected, rtol=2**-10, atol=2e-3)


def test_second_source_is_added_under_names_of_its_own(source, tmp_path):
    other = tmp_path / "elsewhere" / "source"
    write(other / "birds" / "e.wav", noise(1.0, seed=20))
    run(source, tmp_path / "corpus", licence="A")
    prepare([other], tmp_path / "corpus", workers=0, licence="B", progress=False)
    added = rows(tmp_path / "corpus")[-1]
    assert (added["root"], added["path"], added["licence"]) == ("source-2", "birds/e.wav", "B")
    assert added["source"] == "source-2/birds"  # not weighted with the other birds
    assert [row["licence"] for row in rows(tmp_path / "corpus")[:-1]] == ["A"] * 4


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
        Corpus.open(tmp_path / "corpus")


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
    for action in (lambda: Corpus.open(dest), lambda: run(source, dest, n_mels=64)):
        with pytest.raises(ValueError, match=r"made with f_min = 20\.0, not 50\.0"):
            action()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: os.truncate(d / "frames-00000.npy", 5000), r"frames-00000\.npy is missing or"),
        (lambda d: (d / "frames-00000.npy").unlink(), r"frames-00000\.npy is missing or damaged"),
        (lambda d: (d / "manifest.csv").write_text("a,b\n1,2\n"), r"manifest\.csv is missing or"),
        (lambda d: (d / "manifest.csv").unlink(), r"manifest\.csv is missing or damaged"),
        (lambda d: (d / "corpus.json").write_text("{"), r"corpus\.json is damaged"),
        (lambda d: (d / "corpus.json").write_text('{"format": "x"}'), "format 'x'"),
    ],
)
def test_damaged_corpus_is_refused(source, tmp_path, damage, message):
    run(source, tmp_path / "corpus")
    damage(tmp_path / "corpus")
    with pytest.raises(ValueError, match=message):
        Corpus.open(tmp_path / "corpus")


def test_manifest_that_lost_rows_is_refused(source, tmp_path):
    run(source, tmp_path / "corpus")
    path = tmp_path / "corpus" / "manifest.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="lists 3 clips of 4"):
        Corpus.open(tmp_path / "corpus")


def test_missing_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist; make one with .*prepare"):
        Corpus.open(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds no corpus"):
        Corpus.open(tmp_path)
