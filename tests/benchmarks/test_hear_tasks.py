"""The offline tasks: built from a small cache of tones, in HEAR's format."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from quality_sources import PACKS, make_cache, tone, write

from benchmarks.evaluation import music_pools
from benchmarks.evaluation.pools import Recipe
from benchmarks.hear import event_tasks
from benchmarks.hear.__main__ import RECIPES, main
from benchmarks.hear.build import build, three_parts
from benchmarks.hear.check import check_task
from benchmarks.hear.event_tasks import Sound
from benchmarks.hear.task import read_task
from weights.corpus.packages import BuildError

RATE = 16_000
PITCHES = range(52, 56)


def fake_notes(_: Path):
    for program in range(80):
        for pitch in PITCHES:
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            family = music_pools.FAMILIES[program // 8]
            facts = {"font": "opl3", "program": str(program), "family": family}
            yield tone(frequency).astype(np.float32), {**facts, "pitch": str(pitch)}


def fake_drums(_: Path):
    for j, drum in enumerate(("kick", "snare", "tom")):
        for i in range(12):
            facts = {"drum": drum, "kit": "x", "instrument": f"{drum}{i}"}
            yield tone(100 * (j + 1) + i, 0.2).astype(np.float32), facts


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Sources of recordings, and the pools that synthesisers would have to render."""
    cache = make_cache(tmp_path_factory.mktemp("cache"))
    for name in ("kick", "snare", "hihat", "clap"):
        for i in range(6):
            write(cache, "lmms", f"drums/{name}_{i}.wav", tone(60 + i, 0.3))
    for pool, fake in ((music_pools.NOTES, fake_notes), (music_pools.DRUMS_POOL, fake_drums)):
        Recipe(pool.name, pool.seconds, fake, pool.version).pool(cache)
    return cache


@pytest.fixture(scope="module")
def tasks_dir(cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    build(RECIPES.values(), out, cache)
    return out


def labels_of(folder, split):
    return json.loads((folder / f"{split}.json").read_text())


def test_every_kind_of_task_is_there_and_right(tasks_dir):
    assert [check_task(folder) for folder in tasks_dir.iterdir()] == [[]] * len(RECIPES)
    kinds = {
        (t.metadata["embedding_type"], t.metadata["prediction_type"], t.metadata["split_mode"],
         t.metadata["evaluation"][0])
        for t in map(read_task, tasks_dir.iterdir())
    }  # fmt: skip
    assert kinds == {
        ("scene", "multiclass", "new_split_kfold", "top1_acc"),
        ("scene", "multiclass", "trainvaltest", "top1_acc"),
        ("scene", "multiclass", "trainvaltest", "pitch_acc"),
        ("scene", "multilabel", "trainvaltest", "mAP"),
        ("event", "multilabel", "trainvaltest", "event_onset_200ms_fms"),
        ("event", "multilabel", "trainvaltest", "event_onset_50ms_fms"),
    }


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_second_build_is_the_same(tasks_dir, cache, tmp_path):
    build([RECIPES["sounds"], RECIPES["instruments"]], tmp_path, cache)
    for name in ("sounds-v1-offline", "instruments-v1-offline"):
        assert digests(tmp_path / name) == digests(tasks_dir / name)


def test_audio_at_other_rates(cache, tmp_path):
    arguments = ["--cache", str(cache), "--tasks", "letters", "--sample-rates", "16000", "44100"]
    assert main(["tasks", "--out", str(tmp_path), *arguments]) == 0
    folder = tmp_path / "letters-v1-offline"
    assert check_task(folder) == []
    [name, *_] = labels_of(folder, "test")
    low, _ = soundfile.read(folder / "16000/test" / name)
    high, rate = soundfile.read(folder / "44100/test" / name)
    assert rate == len(high) == 44_100
    peaks = [np.abs(np.fft.rfft(wave)).argmax() for wave in (low, high)]  # one second: in Hz
    assert peaks[0] == peaks[1] >= 300


def test_small_tasks_have_a_quarter_of_the_clips(tasks_dir, cache, tmp_path):
    arguments = ["--cache", str(cache), "--tasks", "percussion", "--small"]
    assert main(["tasks", "--out", str(tmp_path), *arguments]) == 0
    assert check_task(tmp_path / "percussion-v1-tiny") == []
    for fold in ("fold00", "fold04"):
        whole = labels_of(tasks_dir / "percussion-v1-offline", fold)
        small = labels_of(tmp_path / "percussion-v1-tiny", fold)
        assert small == dict(list(whole.items())[::4])


def test_groups_are_in_one_part_only():
    rng = np.random.default_rng(0)
    groups = [str(group) for group in rng.integers(0, 30, 300)]
    labels = [str(label) for label in rng.integers(0, 3, 300)]
    parts = three_parts(labels, groups)
    assert sorted(i for part in parts.values() for i in part) == list(range(300))
    seen = [{groups[i] for i in part} for part in parts.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 30
    assert 150 < len(parts["train"]) < 210
    with pytest.raises(BuildError, match="2 groups are too few"):
        three_parts(labels, ["a", "b"] * 150)


def test_pitches_are_in_the_order_of_semitones(tasks_dir):
    rows = (tasks_dir / "pitch-v1-offline/labelvocabulary.csv").read_text().splitlines()
    assert rows == ["idx,label", *(f"{i},{pitch}" for i, pitch in enumerate(PITCHES))]


def test_several_instruments_at_once(tasks_dir):
    folder = tasks_dir / "instruments-v1-offline"
    given = labels_of(folder, "train")
    assert {len(labels) for labels in given.values()} == {1, 2, 3}
    assert all(len(set(labels)) == len(labels) for labels in given.values())
    # mAP needs every label in the test clips.
    vocabulary = (folder / "labelvocabulary.csv").read_text().splitlines()[1:]
    assert len({x for labels in labels_of(folder, "test").values() for x in labels}) == len(
        vocabulary
    )


def test_onsets_are_where_the_labels_say():
    """Clicks in silence: each starts at the sample of its onset."""
    click = np.zeros(4000, np.float32)
    click[:100] = 0.5
    kept = [Sound(click, label, "group") for label in "ab"]
    rng = np.random.default_rng(3)
    mixture = np.zeros(10 * RATE)
    events = event_tasks._place(mixture, kept, rng, pause=(0.1, 0.3), level=(-20, -10))
    assert len(events) > 20
    starts = {round(event["start"] * RATE / 1000) for event in events}
    [sounding] = np.nonzero(mixture)
    rising = {int(i) for i in sounding if mixture[i - 1] == 0}
    assert rising <= starts  # two clicks may touch
    assert all(mixture[start] > 0 for start in starts)
    assert all(event["end"] - event["start"] == 250 for event in events)
    for label in "ab":  # no label overlaps itself
        times = [(e["start"], e["end"]) for e in events if e["label"] == label]
        assert all(end < start for (_, end), (start, _) in pairwise(times))


def test_silence_around_a_sound_is_left_out():
    wave = np.concatenate([np.zeros(1600), tone(1000, 0.5), np.zeros(3200)]).astype(np.float32)
    assert len(event_tasks.audible(wave)) == pytest.approx(8000, abs=320)


def test_sounds_of_test_files_are_of_other_groups(cache, monkeypatch):
    heard: list[set[str]] = []

    def note(kept, rng):
        heard.append({sound.group for sound in kept})
        return np.zeros(10, np.float32), []

    monkeypatch.setattr(event_tasks, "_scene", note)
    event_tasks.sounds(cache)
    train, valid, test = (
        set.union(*part)
        for part in (heard[:8], heard[8:11], heard[11:])
    )  # fmt: skip
    assert len(train) + len(valid) + len(test) == len(train | valid | test)
    # All actors of a voice pack count as one: Default and its Spanish version.
    assert {"British", "Default"} <= train | valid | test
    assert "Default_es" in PACKS
    assert "Default_es" not in train | valid | test
    assert "en" in train | valid | test
    assert "en_GB" not in train | valid | test


def test_unknown_task_and_missing_source(cache, tmp_path, caplog, monkeypatch):
    with pytest.raises(SystemExit):
        main(["tasks", "--out", str(tmp_path), "--tasks", "words"])
    monkeypatch.setenv("PATH", "")
    arguments = ["--cache", str(tmp_path / "empty"), "--tasks", "letters"]
    assert main(["tasks", "--out", str(tmp_path / "out"), *arguments]) == 1
    assert "apt-get not found" in caplog.text
    assert list((tmp_path / "out").iterdir()) == []
