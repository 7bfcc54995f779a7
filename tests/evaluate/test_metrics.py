"""Metrics against scikit-learn, and what happens where they are not defined."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxmed.evaluate.calibration import reliability
from jaxmed.evaluate.metrics import METRICS, from_positive, metric_values, predicted_class

from .synthetic import make_table


def test_two_classes_agree_with_scikit_learn():
    table = make_table(80, skill=0.7)
    target, score = table.target, table.probabilities[:, 1]
    said = (score > 0.5).astype(int)
    expected = {
        "accuracy": sk.accuracy_score(target, said), "recall": sk.recall_score(target, said),
        "specificity": sk.recall_score(target, said, pos_label=0), "precision": sk.precision_score(target, said),
        "f1": sk.f1_score(target, said), "auc": sk.roc_auc_score(target, score),
        "macro_f1": sk.f1_score(target, said, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(target, said), "brier": sk.brier_score_loss(target, score),
        "log_loss": sk.log_loss(target, score),
    }
    values = metric_values(target, table.probabilities)
    assert list(values) == list(METRICS)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-12), name


def test_several_classes_are_macro_averages_of_one_against_the_rest():
    table = make_table(90, ("a", "b", "c"), skill=0.7)
    target, probabilities = table.target, table.probabilities
    said = probabilities.argmax(1)
    values = metric_values(target, probabilities)
    for name, function in (("recall", sk.recall_score), ("precision", sk.precision_score), ("f1", sk.f1_score)):
        assert values[name] == pytest.approx(function(target, said, average="macro"), abs=1e-12), name
    assert values["macro_f1"] == values["f1"]
    specificity = [sk.recall_score(target != k, said != k) for k in range(3)]
    assert values["specificity"] == pytest.approx(np.mean(specificity))
    assert values["auc"] == pytest.approx(sk.roc_auc_score(target, probabilities, multi_class="ovr", average="macro"))
    assert values["log_loss"] == pytest.approx(sk.log_loss(target, probabilities))


def test_with_one_class_only_what_needs_the_other_is_not_defined():
    values = metric_values(np.zeros(4, int), np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.7, 0.3]]))
    assert all(math.isnan(values[name]) for name in ("recall", "f1", "macro_f1", "auc", "balanced_accuracy"))
    assert values["accuracy"] == 0.75 and values["specificity"] == 0.75 and values["precision"] == 0


def test_precision_is_not_defined_when_nothing_is_called_positive():
    values = metric_values(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert math.isnan(values["precision"]) and values["recall"] == 0 and values["f1"] == 0


def test_a_class_that_is_never_predicted_makes_the_macro_precision_undefined():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]])
    assert math.isnan(metric_values(np.array([0, 1, 2]), probabilities)["precision"])


def test_independent_sigmoids_are_judged_by_the_positive_one():
    probabilities = np.array([[0.9, 0.6], [0.1, 0.4]])
    np.testing.assert_array_equal(predicted_class(probabilities), [1, 0])
    assert metric_values(np.array([1, 0]), probabilities)["brier"] == pytest.approx(0.16)
    np.testing.assert_allclose(from_positive(probabilities), [[0.4, 0.6], [0.6, 0.4]])


def test_certain_and_wrong_costs_a_finite_log_loss():
    loss = metric_values(np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))["log_loss"]
    assert loss == pytest.approx(23 * np.log(2) / 2, abs=1e-6)  # clipped at 2^-23


@pytest.mark.parametrize("target", [np.array([], int), np.array([0, -1])])
def test_unknown_targets_and_empty_tables_are_refused(target):
    with pytest.raises(ValueError, match="every target known"):
        metric_values(target, np.full((len(target), 2), 0.5))


def test_the_calibration_error_is_the_weighted_gap_of_the_bins():
    score = np.array([0.05, 0.05, 0.95, 0.95])
    curve = reliability(np.array([0, 1, 1, 1]), np.stack([1 - score, score], 1))
    assert curve.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert curve.observed[[0, 9]].tolist() == [0.5, 1.0] and math.isnan(curve.observed[4])
    assert curve.ece == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)


def test_probabilities_that_come_true_have_a_small_calibration_error():
    rng = np.random.default_rng(0)
    score = rng.random(20000)
    target = (rng.random(20000) < score).astype(int)
    assert reliability(target, np.stack([1 - score, score], 1)).ece < 0.015


def test_bins_are_closed_on_the_right_and_hold_both_ends():
    score = np.array([0.0, 0.1, 0.1001, 1.0])
    curve = reliability(np.array([0, 0, 0, 1]), np.stack([1 - score, score], 1))
    assert curve.count[[0, 1, 9]].tolist() == [2, 1, 1]


def test_several_classes_are_calibrated_by_the_chosen_one():
    curve = reliability(np.array([0, 1]), np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]]))
    assert curve.count[[5, 6]].tolist() == [1, 1] and curve.ece == pytest.approx((0.6 + 0.3) / 2)
