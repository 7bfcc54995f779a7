"""McNemar's exact test and Holm's correction against hand-computed values."""

import numpy as np
import pytest

from jaxmed.evaluate.mcnemar import holm, mcnemar


def pairs(both, first, second, neither):
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, first, second, neither], axis=0).astype(bool)
    return mcnemar(right[:, 0], right[:, 1])


def test_only_the_discordant_cases_count():
    test = pairs(30, 8, 2, 9)
    assert (test.first_only, test.second_only) == (8, 2)
    assert test.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # two-sided binomial tail of 0, 1, 2 out of 10
    assert pairs(0, 8, 2, 0).p_value == test.p_value == pairs(5, 2, 8, 5).p_value


def test_equal_or_no_disagreement_gives_one():
    assert pairs(3, 5, 5, 3).p_value == 1
    assert pairs(3, 0, 0, 3).p_value == 1


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    np.testing.assert_allclose(holm(np.array([0.03, 0.005, 0.04, 0.9])), [0.09, 0.02, 0.09, 0.9])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])
