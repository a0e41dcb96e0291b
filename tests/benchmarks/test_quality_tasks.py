"""Pools and tasks of the quality benchmark, built from small sources made here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from quality_sources import PACKS, make_cache, tone, write

from benchmarks.evaluation import music_pools, pools, sound_pools, speech_pools
from benchmarks.evaluation.pools import Recipe, fit_length, trim_start
from benchmarks.evaluation.probe import splits
from benchmarks.evaluation.tasks import TASKS
from weights.corpus.packages import BuildError


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return make_cache(tmp_path_factory.mktemp("cache"))


def test_pool_is_kept_and_read_again(cache, tmp_path):
    built = []

    def build(_: Path):
        built.append(1)
        yield tone(440, 0.2).astype(np.float32), {"a": "1"}
        yield tone(500, 3.0).astype(np.float32), {"a": "2"}

    recipe = Recipe("some", 1.0, build)
    first, second = recipe.pool(tmp_path), recipe.pool(tmp_path)
    assert built == [1]
    assert first.waveforms.shape == (2, 16_000)
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.waveforms, second.waveforms)
    np.testing.assert_allclose(first.waveforms[0, :3200], tone(440, 0.2), atol=1 / 32767)
    assert not first.waveforms[0, 3200:].any()
    changed = pools.Pool("some", first.waveforms, [{"a": "1"}, {"a": "3"}])
    assert changed.digest != first.digest
    with pytest.raises(BuildError, match="no clip for empty"):
        Recipe("empty", 1.0, lambda _: iter(())).pool(tmp_path)


def test_trimming_keeps_silence_and_short_clips():
    silence = np.zeros(5000, np.float32)
    assert trim_start(silence) is silence
    assert len(trim_start(silence[:30])) == 30
    assert len(fit_length(silence, 7000)) == 7000


def test_letters_are_what_the_table_says(cache):
    pool = TASKS["letters"].recipe.pool(cache)
    assert {f["language"] for f in pool.facts} == {"de", "en", "en_GB", "it", "nl"}  # Latin
    data = TASKS["letters"].data(pool)
    assert data.classes == ("a", "b", "d")
    assert set(data.groups) == {"de", "en", "it", "nl"}  # both kinds of English together
    assert data.chance == pytest.approx(100 / 3)


def test_recordings_that_packs_share_are_left_out(cache):
    pool = speech_pools.VOICES_POOL.pool(cache)
    assert {f["pack"] for f in pool.facts} == set(PACKS)
    assert "shared" not in {f["phrase"] for f in pool.facts}
    reactions = TASKS["reactions"].data(pool)
    assert reactions.classes == ("dismay", "effort", "laugh", "pain")
    assert "Default_es" not in reactions.groups  # may share actors with Default
    assert len(reactions.labels) == len(PACKS) * 6
    speaker = TASKS["speaker"].data(pool)
    assert set(speaker.groups) == {"hello", "jump", "ow", "laugh", "nooo"}


def test_crowds_have_as_many_casts_as_voices_and_groups_share_none(cache, monkeypatch):
    monkeypatch.setattr(
        speech_pools, "voices",
        lambda _: ((np.full(9000, i + 1, np.float32), {"pack": p}) for i, p in enumerate(PACKS)),
    )  # fmt: skip
    monkeypatch.setattr(speech_pools, "_stream", lambda phrases, size, rng: phrases[0][:1])
    monkeypatch.setattr(speech_pools, "CROWD_GROUPS", 2)
    original, mixed = np.sum, []

    def record(parts, axis):
        mixed.append([speech_pools.cast(PACKS[int(p[0]) - 1]) for p in parts])
        return original(parts, axis=axis)

    monkeypatch.setattr(speech_pools.np, "sum", record)
    members: dict[str, set[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    combinations: set[tuple[str, ...]] = set()
    for _, facts in speech_pools.crowds(cache):
        casts = mixed.pop()
        assert len(set(casts)) == len(casts) == int(facts["voices"])
        members.setdefault(facts["group"], set()).update(casts)
        counts[facts["group"], facts["voices"]] += 1
        combinations.add(tuple(sorted(casts)))
    assert set(counts.values()) == {speech_pools.CROWD_CLIPS}
    first, second = members.values()
    assert not first & second
    assert first | second == {speech_pools.cast(pack) for pack in PACKS}
    # Not the same ones again and again: 3 + 3 + 1 of the three casts, 4 + 6 + 4 of the four.
    assert len(combinations) == 7 + 14


def test_disguise_hides_level_and_noise_floor():
    rng = np.random.default_rng(0)
    speech = np.concatenate([tone(440), np.zeros(8000)]).astype(np.float32)
    levels = [speech_pools.disguised(speech, rng).std() for _ in range(50)]
    low, high = 0.05 * 10 ** (-6 / 20), 0.05 * 10 ** (6 / 20)
    assert low * 0.95 < min(levels) < 0.6 * max(levels) < 0.6 * high * 1.05
    heard = speech_pools.disguised(speech, rng)
    ratio = heard[:16_000].std() / heard[16_500:].std()
    # 20 dB over the whole clip; the tone takes two thirds of it, and the noise is added to it.
    assert 20 * np.log10(ratio) == pytest.approx(20 + 10 * np.log10(1.5), abs=1.0)


def test_keys_and_events(cache):
    keys = TASKS["keys"].data(TASKS["keys"].recipe.pool(cache))
    assert keys.classes == ("bottom", "digits", "function", "home", "keypad", "top")
    assert set(keys.groups) == {f"{c:02x}" for c in range(2, 0x54) if not 0x37 <= c <= 0x3A}
    pool = sound_pools.EVENTS.pool(cache)
    counts = Counter((f["kind"], f["recording"]) for f in pool.facts)
    assert counts["Animal", "a"] == 3  # of 9 s, and the silence before does not count
    assert counts["Animal", "b"] == 1


def test_animals_and_voices_of_a_game(cache):
    animals = TASKS["animals"].data(TASKS["animals"].recipe.pool(cache))
    assert animals.classes == ("goat", "horse")
    # A file that is there twice counts once.
    assert Counter(animals.labels.tolist()) == {0: 4, 1: 8}
    sex = TASKS["sex"].data(TASKS["sex"].recipe.pool(cache))
    assert sex.classes == ("female", "male")
    assert Counter(sex.groups.tolist()) == dict.fromkeys(
        ("greek", "latin", "napatan", "persian"), 4
    )


def test_kinds_have_several_sources(cache):
    pool = sound_pools.KINDS.pool(cache)
    kinds = {(f["kind"], f["source"]) for f in pool.facts}
    assert {("speech", "klettres"), ("speech", "hedgewars"), ("sound", "hedgewars")} <= kinds
    assert {("music", "hedgewars-music"), ("music", "lmms"), ("sound", "scratch")} <= kinds
    groups = set(TASKS["kinds"].data(pool).groups)
    assert {"hedgewars-Default", "klettres-en"} <= groups
    assert not {"hedgewars-Default_es", "klettres-en_GB"} & groups


def test_notes_chords_and_drums(cache, monkeypatch):
    def play(notes, program, font, cache, spacing):
        return [np.full(100, note.pitches[0] / 128, np.float32) for note in notes]

    monkeypatch.setattr(music_pools, "play", play)
    monkeypatch.setattr(music_pools, "freepats_numbers", lambda folder, cache: {0: "a", 36: "b"})
    pool = music_pools.NOTES.pool(cache)
    assert len(pool.facts) == (96 + 2) * music_pools.NOTES_PER_PROGRAM
    pitch = TASKS["pitch"].data(pool)
    for index, label in zip(pitch.indices, pitch.labels, strict=True):
        sounding = pool.waveforms[index, 0] * 128
        assert float(pitch.classes[label]) == pytest.approx(sounding, abs=0.01)
        facts = pool.facts[index]
        assert (facts["font"], facts["program"]) not in music_pools.OFF_PITCH
    family = TASKS["instrument"].data(pool)
    assert len(family.classes) == 9
    # A program is one group whatever the font.
    assert len(set(family.groups)) == 8 * 9
    chords = TASKS["chords"].data(music_pools.CHORDS_POOL.pool(cache))
    assert set(Counter(chords.labels.tolist()).values()) == {2 * (40 + 2)}
    drums = TASKS["percussion"].data(music_pools.DRUMS_POOL.pool(cache))
    assert set(drums.groups) == {"lmms", "opl3", "freepats"}
    instruments = {facts["instrument"] for facts in music_pools.DRUMS_POOL.pool(cache).facts}
    assert {"lmms-kick01", "lmms-hihat1", "opl3-35", "freepats-36"} <= instruments
    assert "lmms-zap01" not in instruments


@pytest.mark.parametrize(
    "name", ["letters", "speaker", "reactions", "keys", "events", "kinds", "sex"]
)
def test_no_group_is_divided(cache, name):
    data = TASKS[name].data(TASKS[name].recipe.pool(cache))
    for part in splits(data, seed=3):
        assert not set(data.groups[part.train]) & set(data.groups[part.test])
        for fit, check in part.validation:
            assert not set(data.groups[fit]) & set(data.groups[check])


def test_task_without_clips_says_so(cache):
    with pytest.raises(ValueError, match="no clip for the task keys"):
        TASKS["keys"].data(pools.Pool("keys", np.zeros((1, 10), np.float32), [
            {"row": "escape", "key": "01"}]))  # fmt: skip


def test_longest_and_empty_names(cache):
    assert write(cache, "scratch", "Animal/Dog-male2.wav", tone(300)).is_file()
    assert sound_pools.base_name(Path("Dog-male2.wav")) == "dog"
    assert [len(p) for p in sound_pools.parts(np.zeros(100), 1.0)] == [100]
    assert [len(p) for p in sound_pools.parts(np.zeros(40_000), 1.0)] == [16_000, 16_000]
