"""DeLong against its definition, against published values, and against simulation."""

import math

import numpy as np
import pytest

from jaxmed.evaluate.delong import delong, delong_interval, delong_test


def by_definition(positive, scores):
    """Mean and covariance of the Mann-Whitney kernel, written as in the 1988 paper: every pair by itself."""
    cases, controls = scores[:, positive], scores[:, ~positive]
    kernel = (cases[:, :, None] > controls[:, None, :]) + 0.5 * (cases[:, :, None] == controls[:, None, :])
    area, v10, v01 = kernel.mean((1, 2)), kernel.mean(2), kernel.mean(1)
    s10 = (v10 - area[:, None]) @ (v10 - area[:, None]).T / (v10.shape[1] - 1)
    s01 = (v01 - area[:, None]) @ (v01 - area[:, None]).T / (v01.shape[1] - 1)
    return area, s10 / v10.shape[1] + s01 / v01.shape[1]


def test_it_equals_its_definition_with_ties():
    rng = np.random.default_rng(0)
    positive = rng.random(70) < 0.4
    scores = np.round(rng.normal(size=(3, 70)) + positive, 1)
    area, covariance = delong(positive, scores)
    expected_area, expected_covariance = by_definition(positive, scores)
    np.testing.assert_allclose(area, expected_area, rtol=0, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, rtol=0, atol=1e-12)


def test_the_ct_ratings_of_hanley_and_mcneil_give_the_published_area_and_error():
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)  # Radiology 1982, Table I: ratings 1 to 5
    ratings = np.concatenate([np.repeat(range(1, 6), normal), np.repeat(range(1, 6), abnormal)]).astype(float)
    area, covariance = delong(np.repeat([False, True], (58, 51)), ratings[None])
    assert round(area[0], 4) == 0.8932 and round(math.sqrt(covariance[0, 0]), 4) == 0.0307


def test_the_interval_lies_inside_0_and_1_and_is_longer_below():
    rng = np.random.default_rng(1)
    positive = np.arange(40) % 2 == 0
    value, low, high = delong_interval(positive, rng.normal(size=40) + 3 * positive)
    assert 0 < low < value < high < 1 and value - low > high - value


def test_a_perfect_ranking_has_no_interval():
    value, low, high = delong_interval(np.array([0, 0, 1, 1], bool), np.array([0.1, 0.2, 0.8, 0.9]))
    assert value == 1 and math.isnan(low) and math.isnan(high)


def test_a_single_case_of_a_class_is_refused():
    with pytest.raises(ValueError, match="two cases per class"):
        delong(np.array([True, False, False]), np.zeros((1, 3)))


def test_a_score_does_not_differ_from_a_monotone_copy_of_itself():
    rng = np.random.default_rng(2)
    positive, score = rng.random(50) < 0.5, rng.normal(size=50)
    result = delong_test(positive, score, np.exp(score))
    assert result.difference == 0 and result.p_value == 1


def test_swapping_the_scores_turns_the_difference_around():
    rng = np.random.default_rng(3)
    positive = rng.random(80) < 0.5
    good, poor = rng.normal(size=80) + 2 * positive, rng.normal(size=80)
    one, two = delong_test(positive, good, poor), delong_test(positive, poor, good)
    assert one.p_value == two.p_value < 1e-3 and one.difference == -two.difference
    assert one.low == pytest.approx(-two.high) and one.low > 0


def test_equal_scores_are_called_different_in_about_one_of_twenty_samples():
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(400):
        positive = rng.random(60) < 0.5
        shared = rng.normal(size=60) + positive
        rejected += delong_test(positive, shared + rng.normal(size=60), shared + rng.normal(size=60)).p_value < 0.05
    assert 8 <= rejected <= 34  # 20 expected; 3 standard deviations
