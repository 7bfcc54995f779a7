import numpy as np
import pytest
from scipy.stats import norm

from jaxmed.errors import UserError
from jaxmed.evaluate.prior import class_prior, correct_prior, correction_effect

MEANS, TRUE, LEARNED = np.array([0.0, 1.0, 2.5]), np.array([0.85, 0.1, 0.05]), np.array([1, 1, 1]) / 3


def posterior(x, prior):
    """Bayes' rule for unit-variance Gaussians."""
    joint = norm.pdf(x[:, None], MEANS[None]) * prior
    return joint / joint.sum(1, keepdims=True)


def sample(prior, count=20000):
    rng = np.random.default_rng(0)
    target = rng.choice(len(prior), count, p=prior)
    return target, rng.normal(MEANS[target])


def test_the_correction_is_bayes_rule():
    x = np.linspace(-3, 5, 50)
    np.testing.assert_allclose(correct_prior(posterior(x, LEARNED), LEARNED, TRUE), posterior(x, TRUE), atol=1e-12)
    np.testing.assert_allclose(correct_prior(posterior(x, TRUE), TRUE, TRUE), posterior(x, TRUE), atol=1e-12)


def test_it_calibrates_a_network_that_learned_from_balanced_draws():
    for true, learned in ((TRUE, LEARNED), (np.array([0.8, 0.2]), np.array([0.5, 0.5]))):
        target, x = sample(true)
        probabilities = norm.pdf(x[:, None], MEANS[None, : len(true)]) * learned
        probabilities /= probabilities.sum(1, keepdims=True)
        before, after = correction_effect(target, probabilities, learned, true)
        assert before > 0.1 and after < 0.015


def test_two_classes_keep_their_order():
    p = np.sort(np.random.default_rng(0).random(100))
    moved = correct_prior(np.stack([1 - p, p], 1), np.array([0.5, 0.5]), np.array([0.9, 0.1]))[:, 1]
    assert (np.diff(moved) > 0).all() and (moved < p).all()


def test_the_prior_counts_every_class():
    np.testing.assert_array_equal(class_prior(np.array([0, 0, 2, 0]), 4), [0.75, 0, 0.25, 0])


@pytest.mark.parametrize(
    ("learned", "true", "message"),
    [
        ([0.5, 0.5], [0.9, 0.2], "true prior"),
        ([1.0], [0.9, 0.1], "learned prior"),
        ([1.0, 0.0], [0.9, 0.1], "class 1 has no share"),
    ],
)
def test_bad_priors_are_errors(learned, true, message):
    with pytest.raises(UserError, match=message):
        correct_prior(np.full((3, 2), 0.5), np.array(learned), np.array(true))
