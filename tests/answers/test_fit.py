"""Folds, classifiers and scores against numbers that are known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from hear_msm_mae.answers import fit, scores
from hear_msm_mae.answers.evaluate import explained


def one_hot(labels: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=bool)[labels]


def test_groups_are_never_on_both_sides():
    generator = np.random.default_rng(0)
    for _ in range(20):
        groups = generator.integers(0, 12, 60).astype(str)
        y = one_hot(generator.integers(0, 3, 60), 3)
        checked = []
        for learn, check in fit.folds(y, groups, 5, 0):
            assert not set(groups[learn]) & set(groups[check])
            checked += check.tolist()
        assert sorted(checked) == list(range(60))


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="1 groups; label more files"):
        fit.folds(one_hot(np.array([0, 1, 0]), 2), np.array(["a", "a", "a"]), 5, 0)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("d", [4, 100])  # fewer and more features than recordings
def test_separable_labels_are_learnt(several, count, d):
    generator = np.random.default_rng(0)
    centres = 3 * generator.normal(size=(count, d))
    labels = np.arange(60) % count
    x = 50 + centres[labels] + 0.3 * generator.normal(size=(60, d))
    y = one_hot(labels, count)
    inner = fit.folds(y, np.arange(60).astype(str), 3, 0)
    _, temperature, linear = fit.choose(x, y, several, inner)
    fresh = 50 + centres + 0.3 * generator.normal(size=(count, d))
    found = fit.probabilities(linear.logits(fresh) / temperature, several)
    assert (found.argmax(1) == np.arange(count)).all()
    assert (found.max(1) > 0.9).all()
    if not several:
        np.testing.assert_allclose(found.sum(1), 1)


def test_probabilities_are_calibrated():
    """Two overlapping Gaussians: the true probability is known in closed form."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 1500)
    x = (2.0 * labels - 1 + generator.normal(size=1500) * 1.5)[:, None]
    y = one_hot(labels, 2)
    inner = fit.folds(y, np.arange(1500).astype(str), 3, 0)
    _, temperature, linear = fit.choose(x, y, False, inner)
    points = np.linspace(-3, 3, 13)[:, None]
    found = fit.probabilities(linear.logits(points) / temperature, False)[:, 1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-2 * points[:, 0] / 1.5**2)), atol=0.05)


def test_a_label_that_nobody_has_heard_is_not_predicted():
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(20, 3)), np.arange(20) % 2
    for several in (False, True):
        [linear] = fit.fit(x, one_hot(labels, 3), several, [1.0])
        assert (fit.probabilities(linear.logits(x), several)[:, 2] < 1e-6).all()


def test_scores_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    y = one_hot(generator.integers(0, 4, 80), 5)  # the last label is nowhere
    values = np.round(generator.normal(size=(80, 5)), 1)  # with equal ones
    expected = [average_precision_score(y[:, c], values[:, c]) for c in range(4)]
    found = scores.average_precisions(values, y)
    np.testing.assert_allclose(found[:4], expected)
    assert np.isnan(found[4])
    labels, said = y.argmax(1), values.argmax(1)
    keep = said < 4
    assert scores.balanced_accuracy(values[keep], y[keep]) == pytest.approx(
        balanced_accuracy_score(labels[keep], said[keep])
    )
    assert scores.accuracy(values, y) == pytest.approx(np.mean(labels == said))


def test_intervals_cover_the_truth():
    """Groups of four that are right or wrong together: about 95 % of the intervals hold 0.7."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4).astype(str)
    y = one_hot(np.zeros(240, int), 2)
    covered = 0
    for trial in range(50):
        right = np.repeat(generator.random(60) < 0.7, 4)
        values = np.stack([right, ~right], axis=1).astype(float)
        low, high = scores.interval(scores.accuracy, values, y, groups, trial)
        covered += low <= 0.7 <= high
    assert 43 <= covered <= 50


def test_a_perfect_score_has_an_interval():
    y = one_hot(np.zeros(10, int), 2)
    found = scores.interval(scores.accuracy, y.astype(float), y, np.arange(10).astype(str))
    assert found == pytest.approx((0.6915, 1.0), abs=1e-4)  # Clopper-Pearson for 10 of 10


def test_neighbours():
    x = np.array([[0.0, 1], [0, 2], [0, 3], [1, 0], [2, 0], [3, 0], [0, 2.5], [2.5, 0]])
    y = one_hot(np.array([0, 0, 0, 1, 1, 1, 0, 1]), 2)
    found = fit.neighbours(x, y, np.arange(6), np.array([6, 7]))
    assert found.argmax(1).tolist() == [0, 1]
    np.testing.assert_allclose(found.sum(1), 1)


def test_what_labels_explain():
    labels = np.arange(300) % 3
    noise = np.random.default_rng(0).normal(size=300)
    assert abs(explained(noise, labels)) < 0.05
    assert explained(labels * 10 + noise, labels) > 0.85
    assert explained(np.ones(300), labels) == 0.0
