"""The bootstrap against plain resampling, its coverage, clusters, and which method is chosen where."""

import math
import time

import numpy as np
import pytest

from jaxmed.evaluate.intervals import metric_intervals, use_delong
from jaxmed.evaluate.metrics import METRICS, metric_values
from jaxmed.evaluate.resample import draw_clusters, weighted_auc, weighted_metrics
from jaxmed.evaluate.table import Predictions

from .synthetic import make_table


def table_of(target, score, group=None) -> Predictions:
    n = len(target)
    text, group = np.array([""] * n), np.arange(n) if group is None else group
    case = np.array([f"c{i}" for i in range(n)])
    return Predictions(("benign", "malignant"), case, text, np.array([f"g{g}" for g in group]), text, np.zeros(n, int),
                       np.zeros(n, int), np.asarray(target), np.stack([1 - score, score], 1))


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_counting_cases_equals_repeating_them(classes):
    table = make_table(40, classes, skill=0.5)
    table.probabilities = np.round(table.probabilities, 1)  # ties
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=25)
    values = weighted_metrics(table.target, table.probabilities, counts)
    for row, count in enumerate(counts):
        rows = np.repeat(np.arange(40), count)
        expected = metric_values(table.target[rows], table.probabilities[rows])
        for name in values:
            np.testing.assert_allclose(values[name][row], expected[name], rtol=0, atol=1e-12, err_msg=name)


def test_a_resample_is_as_many_whole_clusters_and_holds_every_class():
    clusters, target = np.repeat(np.arange(12), 3), np.repeat([1] + [0] * 11, 3)
    draws = draw_clusters(clusters, target, resamples=500, seed=1)
    assert draws.shape == (500, 12) and (draws.sum(1) == 12).all()
    assert (draws[:, 0] > 0).all()  # the only positive cluster: plain draws would miss it in 35 % of the resamples


def test_the_same_seed_gives_the_same_interval():
    table = make_table(40, group_size=2)
    one, two = metric_intervals(table, 200), metric_intervals(table, 200)
    assert {name: (e.low, e.high) for name, e in one.items() if e.low == e.low} == {
        name: (e.low, e.high) for name, e in two.items() if e.low == e.low}
    assert metric_intervals(table, 200, seed=7)["accuracy"].low != pytest.approx(one["accuracy"].low, abs=1e-12) or (
        metric_intervals(table, 200, seed=7)["brier"].low != one["brier"].low)


def test_copies_of_cases_do_not_narrow_a_cluster_interval():
    rng = np.random.default_rng(3)
    target = np.arange(50) % 2
    score = 1 / (1 + np.exp(-rng.normal(size=50) - 2 * (target - 0.5)))
    alone = metric_intervals(table_of(target, score))["brier"]
    copied = [np.repeat(x, 4) for x in (target, score, np.arange(50))]
    clustered, naive = metric_intervals(table_of(*copied))["brier"], metric_intervals(table_of(*copied[:2]))["brier"]
    width = {name: e.high - e.low for name, e in (("alone", alone), ("clustered", clustered), ("naive", naive))}
    assert width["clustered"] == pytest.approx(width["alone"], rel=0.1)
    assert width["naive"] == pytest.approx(width["alone"] / 2, rel=0.15)


def test_the_auc_interval_covers_the_truth_about_as_often_as_it_says():
    rng, truth, covered, trials = np.random.default_rng(5), 0.9214, 0, 120  # Phi(2 / sqrt 2)
    for _ in range(trials):
        target = np.arange(60) % 2
        score = 1 / (1 + np.exp(-rng.normal(size=60) - 2 * target))
        pairs = table_of(target, score, group=np.arange(60) // 2)
        auc = metric_intervals(pairs, resamples=300)["auc"]
        assert "cluster bootstrap over 30" in auc.method
        covered += auc.low <= truth <= auc.high
    assert 0.86 <= covered / trials <= 1


def test_delong_is_used_only_where_every_case_stands_alone():
    alone, pairs = make_table(40), make_table(40, group_size=2)
    assert metric_intervals(alone, 100)["auc"].method == "DeLong, logit scale, 40 independent cases"
    assert metric_intervals(pairs, 100)["auc"].method.startswith("cluster bootstrap over 20")
    patients = make_table(40)
    patients.patient_id[:2] = "p1"
    assert not use_delong(patients) and "over 39" in metric_intervals(patients, 100)["auc"].method
    assert not use_delong(make_table(42, ("a", "b", "c")))


def test_in_a_leaky_split_cases_are_not_called_independent():
    estimates = metric_intervals(make_table(40), 100, linked=False)
    assert "DeLong" not in estimates["auc"].method and "copies not linked" in estimates["auc"].method


def test_no_error_gives_an_exact_bound_instead_of_a_width_of_zero():
    target = np.arange(40) % 2
    estimates = metric_intervals(table_of(target, np.where(target, 0.9, 0.1), group=np.arange(40) // 4), 100)
    assert estimates["accuracy"].value == 1 and estimates["accuracy"].low == pytest.approx(0.025 ** (1 / 10))
    assert "exact (Clopper-Pearson) over 10" in estimates["recall"].method
    assert math.isnan(estimates["auc"].low) and "no interval" in estimates["auc"].method


def test_an_undefined_metric_has_no_interval():
    estimates = metric_intervals(table_of(np.zeros(10, int), np.linspace(0.1, 0.9, 10)), 100)
    assert math.isnan(estimates["auc"].value) and "not defined" in estimates["auc"].method
    assert not math.isnan(estimates["specificity"].low)


def test_resamples_without_a_metric_are_left_out_and_counted():
    score = np.array([0.9] + [0.1] * 9)  # a single alarm: a third of the resamples have none, hence no precision
    precision = metric_intervals(table_of(np.array([1, 1] + [0] * 8), score), 500)["precision"]
    assert "exact" in precision.method
    score[2] = 0.8
    precision = metric_intervals(table_of([1, 1] + [0] * 8, score), 500)["precision"]
    assert "resamples without it left out" in precision.method


def test_an_interval_holds_its_value_and_the_calibration_error_has_none():
    estimates = metric_intervals(make_table(80, group_size=2, skill=0.8), 500)
    for name in METRICS:
        if name != "ece":
            assert estimates[name].low <= estimates[name].value <= estimates[name].high, name
    assert math.isnan(estimates["ece"].low) and "no interval" in estimates["ece"].method


def test_ties_count_half():
    counts = np.ones((1, 4))
    assert weighted_auc(np.array([0, 1, 0, 1], bool), np.full(4, 0.5), counts)[0] == 0.5


def test_700_cases_take_less_than_three_seconds():
    table = make_table(700, group_size=2)
    start = time.process_time()
    metric_intervals(table)
    assert time.process_time() - start < 3
