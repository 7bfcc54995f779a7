"""Test sets of other hospitals, which the network of every fold reads: the same cases again, not more of them."""

import numpy as np
import pytest

from jaxmed.evaluate.breasts import SIDE
from jaxmed.evaluate.intervals import metric_intervals
from jaxmed.evaluate.levels import level_estimates, patient_level
from jaxmed.evaluate.metrics import METRICS, confusion_matrix, metric_values
from jaxmed.evaluate.repeats import estimate
from jaxmed.evaluate.summary import format_table, write_metrics
from jaxmed.evaluate.table import concatenate
from jaxmed.evaluate.wording import averaged_over, mean_confusion, mean_sd, passes
from jaxmed.evaluate.workdir import headline_split, read_workdir
from jaxmed.evaluate.wrong import most_wrong

from .synthetic import RUN, make_breasts, make_images, make_table
from .test_report import build

SETS = {"multi": 30, "single": 20}
FOLDS = 3


def every_fold(split="multi", patients=30, **more):
    """One table per fold's network, all of the same cases."""
    return [make_images(patients, split=split, fold=f, seed=f, **more) for f in range(FOLDS)]


@pytest.fixture(scope="module")
def cv_tables():
    """Rows as a cross-validation writes them: per fold every test set, then the fold's validation split."""
    sets = [every_fold(name, patients) for name, patients in SETS.items()]
    val = [make_images(12, split=f"val{f}", fold=f) for f in range(FOLDS)]
    for table in val:
        table.split[:] = "val"
    return [part for parts in zip(*sets, val, strict=True) for part in parts]


@pytest.fixture(scope="module")
def built(cv_tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("sets")
    run = {"data": RUN["data"] | {"mask_origin": "", "warnings": []}, "cv": {"kind": "fold", "parts": FOLDS}}
    page = build(path, cv_tables, run=run, features=False)
    return path, page


def test_every_network_is_tested_on_all_cases_and_their_metrics_averaged():
    parts = every_fold()
    found = estimate(concatenate(parts))
    for name in METRICS:
        values = [metric_values(part.target, part.probabilities)[name] for part in parts]
        assert found[name].value == pytest.approx(np.mean(values)) and found[name].runs == pytest.approx(values)
        assert found[name].sd == pytest.approx(np.std(values, ddof=1))
    assert "mean of 3 folds; cluster bootstrap over 30 patients" in found["auc"].method


def test_asking_equal_networks_again_does_not_narrow_the_interval():
    same = [make_images(30, fold=f, seed=0) for f in range(FOLDS)]
    several, one = estimate(concatenate(same)), metric_intervals(same[0])
    for name in ("accuracy", "recall", "f1", "auc", "brier"):
        assert (several[name].low, several[name].high) == pytest.approx((one[name].low, one[name].high))
        assert several[name].sd == pytest.approx(0, abs=1e-12)


def test_the_interval_resamples_patients_and_averages_networks_inside():
    parts = every_fold()
    found = estimate(concatenate(parts))["accuracy"]
    right = np.mean([(part.probabilities[:, 1] > 0.5) == part.target for part in parts], axis=0)
    hits, sizes = np.bincount(parts[0].clusters(), right), np.bincount(parts[0].clusters())
    draws = np.random.default_rng(1).integers(0, len(sizes), (20000, len(sizes)))
    expected = np.percentile(hits[draws].sum(1) / sizes[draws].sum(1), [2.5, 97.5])
    np.testing.assert_allclose((found.low, found.high), expected, atol=0.01)


def test_confusion_counts_are_those_of_one_pass():
    parts = every_fold()
    table = concatenate(parts)
    counts = [confusion_matrix(part.target, part.probabilities) for part in parts]
    np.testing.assert_allclose(mean_confusion(table), np.mean(counts, axis=0))
    assert mean_confusion(table).sum() == pytest.approx(len(parts[0])) and averaged_over(table) == "networks"


@pytest.mark.parametrize(("tables", "expected", "words"), [
    ([make_table(20)], 1, ""),
    ([make_table(20, repeat=r) for r in range(3)], 3, "repeats"),
    ([make_images(9, split=f"fold{f}", fold=f) for f in range(3)], 1, ""),
    ([make_images(9, fold=f, repeat=r) for f in range(3) for r in range(2)], 6, "networks"),
])
def test_passes_count_how_often_a_case_is_read(tables, expected, words):
    assert passes(concatenate(tables)) == expected and averaged_over(concatenate(tables)) == words


def test_a_wrong_case_is_shown_once_with_the_mean_of_its_networks():
    parts = every_fold()
    wrong = most_wrong(concatenate(parts), 10)
    mean = np.mean([part.probabilities for part in parts], axis=0)
    of_truth = mean[np.arange(len(mean)), parts[0].target]
    assert [case.case_id for case in wrong] == parts[0].case_id[np.argsort(of_truth, kind="stable")[:10]].tolist()
    assert wrong[0].probability == pytest.approx(of_truth.min())


def test_the_headline_is_test_or_the_first_set_that_is_not_validation():
    val, multi, test = make_table(6, split="val"), make_table(6, split="multi"), make_table(6, split="test")
    assert headline_split(concatenate([val, multi, test])) == "test"
    assert headline_split(concatenate([val, multi])) == "multi" and headline_split(val) == "val"
    multi.target[:] = -1
    assert headline_split(concatenate([val, multi])) == "val"


def test_the_page_is_about_the_first_set_and_counts_its_cases_once(built):
    path, page = built
    parts = every_fold()
    counts = np.mean([confusion_matrix(part.target, part.probabilities) for part in parts], axis=0)
    images, patients = len(parts[0]), len(set(parts[0].patient_id))
    assert f"3 networks (3 folds) read {images} cases of {patients} patients of the test set 'multi'." in page.text
    assert f"found {round(counts[1, 1], 1):g} of {counts[1].sum():g} malignant cases" in page.text
    assert "The other test set, single, can be found below." in page.text
    assert "Counts are means over networks." in page.text and "Probabilities are means over networks." in page.text
    assert "Read this first" not in page.text and read_workdir(path).test_sets == ["multi", "single"]


def test_every_set_has_a_row_per_level_with_mean_and_sd(built, cv_tables):
    table = concatenate(cv_tables)
    for split in SETS:
        rows = table.select(split=split)
        levels = level_estimates(rows)
        counted = f"{split} {len(set(rows.case_id))} {len(set(rows.patient_id))}"
        for level, start in (("image", counted), ("patient", "")):
            found = levels[level]["accuracy"]
            value, sd, low, high = (f"{100 * x:.1f}" for x in (found.value, found.sd, found.low, found.high))
            assert f"{start} {level} {value} ± {sd} % {low} to {high} %".strip() in built[1].text
    heads = "Set Cases Patients Level Accuracy Sensitivity Specificity Precision F1 score AUC Method"
    assert heads in built[1].text and "Everything else on this page is about multi." in built[1].text


def test_metrics_json_has_the_sets_in_order_and_both_levels(built, cv_tables):
    metrics = write_metrics(built[0])
    assert list(metrics) == ["multi", "single", "val"]
    patients = patient_level(concatenate(cv_tables).select(split="single"))
    areas = [metric_values(part.target, part.probabilities)["auc"] for part in patients.parts()]
    assert metrics["single"]["patient/auc"]["value"] == pytest.approx(np.mean(areas))
    assert metrics["single"]["patient/auc"]["sd"] == pytest.approx(np.std(areas, ddof=1))
    assert metrics["single"]["patient/patients"]["value"] == 20
    text = format_table(metrics)
    assert text.index("val:") < text.index("single:") < text.index("multi:") and "(used to choose" in text.split("single:")[0]
    assert "30 patients, the mean probability over the images of each" in text
    assert f"AUC                   {metrics['multi']['patient/auc']['value']:.3f} ± " in text
    own = [line for line in text.splitlines() if not line.startswith("  [")]
    assert max(map(len, own)) <= 120


def test_one_set_needs_no_table_of_sets(tmp_path):
    page = build(tmp_path, [make_images(20, split="single")], features=False)
    assert "Test sets" not in page.text and "The other test set" not in page.text
    assert "These are not held-out" not in page.text


def test_sets_without_patients_have_one_row_each(tmp_path):
    page = build(tmp_path, [make_table(20, split="a"), make_table(20, split="b")], features=False)
    assert "Set Cases Patients Accuracy" in page.text and "a 20 – " in page.text and "Image level" not in page.text


def test_the_papers_protocol_is_named_beside_its_numbers(tmp_path):
    data = RUN["data"] | {"split_kind": "grouped, paper's protocol: selected and tested on the same cases"}
    page = build(tmp_path, [make_table(20, split="a"), make_table(20, split="b")], run={"data": data}, features=False)
    assert "The cases of a also chose the epoch: its numbers are too good." in page.text


def test_breasts_have_no_patient_level(tmp_path):
    table = make_breasts(30)
    assert SIDE in table.extras and len(set(table.patient_id)) < len(table)
    page = build(tmp_path, [table], features=False)
    assert "patient level" not in page.text
    assert not any(name.startswith("patient/") for name in write_metrics(tmp_path)["test"])


def test_the_spread_stands_before_the_unit():
    found = estimate(concatenate(every_fold()))
    accuracy, area = found["accuracy"], found["auc"]
    assert mean_sd("accuracy", accuracy) == f"{100 * accuracy.value:.1f} ± {100 * accuracy.sd:.1f} %"
    assert mean_sd("auc", area) == f"{area.value:.3f} ± {area.sd:.3f}"
