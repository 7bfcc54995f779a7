"""Several trained networks: SD over repeats, AUC per fold, intervals over patients."""

import math

import numpy as np
import pytest

from jaxmed.evaluate.intervals import metric_intervals
from jaxmed.evaluate.metrics import metric_values
from jaxmed.evaluate.repeats import summarise_repeats

from .synthetic import make_table


def auc(table) -> float:
    return metric_values(table.target, table.probabilities)["auc"]


def test_mean_and_sd_are_over_repeats():
    tables = [make_table(40, repeat=r, seed=r) for r in range(5)]
    summary = summarise_repeats(tables, 200)["auc"]
    runs = [auc(table) for table in tables]
    assert summary.value == pytest.approx(np.mean(runs)) and summary.sd == pytest.approx(np.std(runs, ddof=1))
    assert summary.runs == pytest.approx(runs)


def test_the_auc_is_per_fold_and_never_over_pooled_scores():
    folds = [make_table(30, split="test", fold=f, seed=f, case_seed=f) for f in range(3)]
    for f, table in enumerate(folds):
        table.case_id[:] = [f"f{f}-{name}" for name in table.case_id]
        table.group[:] = table.case_id
        table.probabilities[:, 1] = 0.3 * table.probabilities[:, 1] + 0.3 * f  # every fold on a scale of its own
    summary = summarise_repeats(folds, 200)["auc"]
    assert summary.value == pytest.approx(np.mean([auc(table) for table in folds]))
    assert len(summary.runs) == 3 and "3 folds" in summary.method


def test_folds_are_averaged_before_repeats():
    tables = [make_table(20, repeat=r, fold=f, seed=10 * r + f) for r in range(2) for f in range(2)]
    summary = summarise_repeats(tables, 100)["auc"]
    areas = np.array([auc(table) for table in tables]).reshape(2, 2)
    assert summary.runs == pytest.approx(areas.mean(1))
    assert summary.sd == pytest.approx(areas.mean(1).std(ddof=1))


def test_the_interval_is_about_patients_and_not_about_training_runs():
    """Identical repeats: no training variability, but the uncertainty of the patients stays what it was."""
    one = make_table(60, group_size=2)
    tables = [make_table(60, group_size=2, repeat=r) for r in range(8)]
    summary, alone = summarise_repeats(tables)["auc"], metric_intervals(one)["auc"]
    assert summary.sd == pytest.approx(0, abs=1e-12)
    assert (summary.low, summary.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_the_calibration_error_has_a_mean_but_no_interval():
    summary = summarise_repeats([make_table(30, repeat=r, seed=r) for r in range(2)], 50)["ece"]
    assert summary.value > 0 and math.isnan(summary.low) and "no interval" in summary.method


def test_a_fold_without_a_class_makes_the_auc_undefined_instead_of_wrong():
    tables = [make_table(20, fold=f, seed=f, split=f"s{f}") for f in range(2)]
    tables[1] = tables[1].take(tables[1].target == 0)
    assert math.isnan(summarise_repeats(tables, 50)["auc"].value)
