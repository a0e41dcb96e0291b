"""The linear probe: right answers on known problems, and no look at what it is scored on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from benchmarks.evaluation import probe
from benchmarks.evaluation.probe import (
    GRID,
    Split,
    choose,
    fit_predict,
    reduced,
    score,
    score_few,
    score_neighbours,
    splits,
)
from benchmarks.evaluation.tasks import TaskData


def task(labels, groups) -> TaskData:
    labels = np.asarray(labels)
    classes = tuple(str(i) for i in range(labels.max() + 1))
    groups = np.array([f"g{g}" for g in groups])
    return TaskData("made", np.arange(len(labels)), labels, groups, classes)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=12, max_size=60),
    st.integers(0, 50),
)
def test_groups_are_never_divided_and_every_clip_is_tested_once(clips, seed):
    labels, groups = zip(*clips, strict=True)
    data = task(labels, groups)
    if len(set(groups)) < 3:
        with pytest.raises(ValueError, match="too few to divide"):
            splits(data, seed)
        return
    try:
        parts = splits(data, seed)
    except ValueError as error:  # one group holds nearly everything
        if "clip(s) of any label is too few" not in str(error):
            raise
        reject()
    tested = np.concatenate([part.test for part in parts])
    assert sorted(tested) == list(range(len(labels)))
    for part in parts:
        assert sorted([*part.train, *part.test]) == list(range(len(labels)))
        assert not set(data.groups[part.train]) & set(data.groups[part.test])
        for fit, check in part.validation:
            assert set(fit) | set(check) == set(part.train)
            assert not set(data.groups[fit]) & set(data.groups[check])


def problem(n=240, d=20, classes=3, noise=0.1, seed=0):
    """Labels are the largest of linear functions of the embeddings."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    logits = x @ rng.standard_normal((d, classes)) + noise * rng.standard_normal((n, classes))
    return x.astype(np.float32), logits.argmax(axis=1), np.arange(n) % 12


def test_linear_problem_is_solved_whatever_the_scale_of_the_features():
    x, labels, groups = problem(n=480, d=8)
    parts = splits(task(labels, groups), 0)
    accuracy = score(x, labels, parts)
    assert accuracy > 93
    scales = 10.0 ** np.random.default_rng(1).uniform(-3, 3, 8).astype(np.float32)
    assert score(x * scales + 5, labels, parts) == pytest.approx(accuracy, abs=1.5)


def test_random_labels_are_at_chance():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((600, 30)).astype(np.float32), rng.integers(0, 4, 600)
    accuracy = score(x, labels, splits(task(labels, np.arange(600) % 20), 0), GRID[:3])
    # Four standard deviations of 600 guesses.
    assert accuracy == pytest.approx(25, abs=4 * 100 * np.sqrt(0.25 * 0.75 / 600))


def test_what_only_identifies_the_group_does_not_help():
    """Labels go with groups; embeddings tell the group and nothing else."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 10)
    labels = rng.permutation(np.arange(24) % 4)[groups]
    x = rng.standard_normal((24, 50))[groups] + 0.01 * rng.standard_normal((240, 50))
    accuracy = score(x.astype(np.float32), labels, splits(task(labels, groups), 0), GRID[:3])
    assert accuracy < 60  # divided by clips it would be 100


def test_choice_and_predictions_do_not_depend_on_test_labels():
    x, labels, groups = problem(noise=3.0)
    for part in splits(task(labels, groups), 0):
        other = labels.copy()
        other[part.test] = (other[part.test] + 1) % 3
        before, after = (score(x, y, [part]) for y in (labels, other))
        # Same predictions: a clip counts as a hit under at most one of the labellings.
        assert before + after <= 100
        features = reduced(x, part.train)
        scrambled = x.copy()
        scrambled[part.test] = 1e3
        np.testing.assert_array_equal(
            features[part.train], reduced(scrambled, part.train)[part.train]
        )


def test_choice_prefers_the_stronger_of_equals_and_finds_the_better():
    x, labels, groups = problem(d=60, noise=8.0)
    [part, *_] = splits(task(labels, groups), 0)
    features = reduced(x, part.train)
    hits = [
        sum((fit_predict(features, labels, f, c, [g])[0] == labels[c]).sum() for f, c in
            part.validation) for g in GRID
    ]  # fmt: skip
    # The grid is walked with warm starts, so a clip or two may differ from separate fits.
    best = choose(features, labels, part.validation, GRID)
    assert hits[GRID.index(best)] >= max(hits) - 2
    assert choose(features, labels, part.validation, (1e-9, 2e-9)) == 1e-9


def test_reduction_changes_no_prediction():
    """More features than clips: the probe in the span of the clips is the probe."""
    from sklearn.linear_model import LogisticRegression

    x, labels, _ = problem(n=60, d=200, noise=0.5)
    train, test = np.arange(40), np.arange(40, 60)
    small = reduced(x, train)
    assert small.shape == (60, 39)  # 40 centred clips span 39 dimensions
    full = (x - x[train].mean(0)) / x[train].std(0) / np.sqrt(200)
    probe = LogisticRegression(C=3.0, max_iter=5000, tol=1e-10)
    expected = probe.fit(full[train], labels[train]).predict_proba(full[test])
    actual = probe.fit(small[train], labels[train]).predict_proba(small[test])
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_features_that_are_constant_in_training_are_left_out():
    x, labels, _ = problem(n=60, d=4)
    x = np.concatenate([x, np.full((60, 1), 7.0, np.float32)], axis=1)
    x[50:, 4] = 1e6  # only in the test clips
    part = Split(np.arange(50), np.arange(50, 60), ((np.arange(25), np.arange(25, 50)),))
    assert np.abs(reduced(x, part.train)).max() < 10
    assert score(x, labels, [part]) == score(x[:, :4], labels, [part])


def test_neighbours_vote():
    """Two clips of one label are nearest, three of the other follow: the three win if as near."""
    angles = np.array([0.0, 0.01, 0.02, 2.0, 2.01, 1.0, 0.03, 2.02, 1.01, 1.02, 2.03])
    labels = np.array([0, 0, 0, 1, 1, 2, 0, 1, 2, 2, 1])
    x = np.stack([np.cos(3 * angles), np.sin(3 * angles)], axis=1).astype(np.float32)
    part = Split(np.array([0, 1, 3, 4, 5, 6, 7, 8, 9]), np.array([2, 10]), ())
    assert score_neighbours(x, labels, [part]) == 100.0
    assert score_neighbours(x * 1e4 + 7, labels, [part]) == 100.0  # of standardised values
    rng = np.random.default_rng(0)
    noise, random = rng.standard_normal((600, 30)).astype(np.float32), rng.integers(0, 4, 600)
    accuracy = score_neighbours(noise, random, splits(task(random, np.arange(600) % 20), 0))
    assert accuracy == pytest.approx(25, abs=4 * 100 * np.sqrt(0.25 * 0.75 / 600))


def test_few_sees_eight_clips_per_label(monkeypatch):
    x, labels, groups = problem(n=480, d=8)
    labels[:5] = 3  # a label with fewer clips: all of them
    parts = splits(task(labels, groups), 0)
    seen = []

    def record(x, labels, fit, check, grid):
        seen.append((set(fit), np.bincount(labels[fit], minlength=4).tolist()))
        return fit_predict(x, labels, fit, check, grid)

    monkeypatch.setattr(probe, "fit_predict", record)
    accuracy = score_few(x, labels, parts, seed=0)
    assert accuracy == score_few(x, labels, parts, seed=0) > 60
    for part, (clips, counts) in zip(parts * 2, seen, strict=True):
        assert clips <= set(part.train)
        assert counts == [8, 8, 8, np.sum(labels[part.train] == 3)]
    assert seen[0][0] != (score_few(x, labels, parts, seed=1), seen[-4][0])[1]
