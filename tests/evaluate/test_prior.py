import numpy as np
import pytest
from scipy.stats import norm

from jaxmed.errors import UserError
from jaxmed.evaluate.predictions import concatenate
from jaxmed.evaluate.prior import class_prior, correct_prior, corrected_table, correction_effect, correction_of_table
from jaxmed.evaluate.summary import write_metrics

from .synthetic import make_images
from .test_report import build

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


PRIORS = {"learned": [0.5, 0.5], "true": [0.8, 0.2]}


def test_a_table_is_corrected_by_its_positive_class():
    table = make_images(10)
    expected = correct_prior(table.probabilities, PRIORS["learned"], PRIORS["true"])
    table.probabilities[:, 0] = 0  # independent sigmoids need not sum to 1
    np.testing.assert_allclose(corrected_table(table, PRIORS).probabilities, expected)
    with pytest.raises(UserError, match=r"run.json: priors lacks true"):
        corrected_table(table, {"learned": [0.5, 0.5]})


def test_errors_of_several_networks_are_averaged():
    parts = [make_images(30, fold=f, seed=f, shift=1) for f in range(2)]
    each = [correction_effect(p.target, p.probabilities, PRIORS["learned"], PRIORS["true"]) for p in parts]
    assert correction_of_table(concatenate(parts), PRIORS) == pytest.approx(np.mean(each, axis=0).tolist())


def test_the_report_shows_calibration_before_and_after_and_leaves_the_rest(tmp_path):
    table = make_images(60, split="test", positive=0.2, shift=1.4)
    before, after = correction_of_table(table, PRIORS)
    page = build(tmp_path / "with", [table], run={"priors": PRIORS}, features=False)
    plain = build(tmp_path / "without", [table], run={"priors": {}}, features=False)
    assert after < before and f"(ECE) is {before:.3f} before and {after:.3f} after this correction" in page.text
    assert "Training drew 50.0 % benign and 50.0 % malignant, while its cases are 80.0 % benign and 20.0 %" in page.text
    assert "so the AUC stays as it is" in page.text and "prior corrected" in str(page.images) + page.text
    assert "prior" not in plain.text and "Training drew" not in plain.text
    corrected, uncorrected = write_metrics(tmp_path / "with")["test"], write_metrics(tmp_path / "without")["test"]
    assert corrected.pop("ece_prior_corrected")["value"] == pytest.approx(after) and corrected == uncorrected


def test_priors_of_other_classes_are_an_error(tmp_path):
    shares = [0.2, 0.3, 0.5]
    with pytest.raises(UserError, match="the learned prior must be 2 shares"):
        build(tmp_path, [make_images(20)], run={"priors": {"learned": shares, "true": shares}}, features=False)
