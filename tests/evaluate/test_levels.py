"""Patient-level metrics: the mean over a patient's images, and what makes a patient malignant."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.evaluate.levels import estimates_by_level, level_estimates, patient_level, several_images
from jaxmed.evaluate.metrics import metric_values
from jaxmed.evaluate.predictions import Predictions, concatenate
from jaxmed.evaluate.summary import write_metrics

from .synthetic import make_images
from .test_report import build

CLASSES = ("benign", "malignant")


def table_of(patients, targets, scores, fold=0, split="test") -> Predictions:
    n, scores = len(patients), np.array(scores, float)
    return Predictions(
        CLASSES, case_id=np.array([f"{fold}-{k}" for k in range(n)]), patient_id=np.array(patients, str),
        group=np.array([f"g{p}" for p in patients]), split=np.array([split] * n),
        fold=np.full(n, fold), repeat=np.zeros(n, int),
        target=np.array(targets), probabilities=np.stack([1 - scores, scores], axis=1),
        extras={"gate_image": scores},
    )  # fmt: skip


def test_a_patients_probability_is_the_mean_of_its_images():
    patients = patient_level(table_of(["b", "a", "b", "b"], [1, 0, 1, 1], [0.9, 0.2, 0.6, 0.3]))
    assert patients.case_id.tolist() == patients.patient_id.tolist() == ["a", "b"]
    np.testing.assert_allclose(patients.probabilities, [[0.8, 0.2], [0.4, 0.6]])
    assert patients.target.tolist() == [0, 1]
    assert patients.extras["images"].tolist() == [1, 3] and "gate_image" not in patients.extras


def test_a_patients_probability_is_that_of_the_more_suspicious_breast():
    table = table_of(["b", "a", "b"], [1, 0, 0], [0.9, 0.2, 0.6])
    table.extras |= {"side": np.array(["left", "left", "right"]), "study_id": np.array(["s", "t", "s"])}
    assert several_images(table)
    patients = patient_level(table)
    np.testing.assert_allclose(patients.probabilities, [[0.8, 0.2], [0.1, 0.9]])
    assert patients.target.tolist() == [0, 1] and list(patients.extras) == ["images"]
    table.extras["views"] = np.array(["L_CC"] * 3)  # breasts of a network that looks at whole studies
    assert not several_images(table)


def test_one_malignant_image_makes_the_patient_malignant_unless_all_must_agree():
    table = table_of(["a", "a", "b"], [0, 1, 0], [0.5, 0.5, 0.5])
    assert patient_level(table).target.tolist() == [1, 0]
    with pytest.raises(UserError, match="patient 'a' has images of different classes"):
        patient_level(table, rule="same")
    assert patient_level(table_of(["a", "a"], [1, 1], [0.1, 0.2]), rule="same").target.tolist() == [1]


def test_splits_folds_and_unknown_targets_stay_apart():
    known = table_of(["a", "a"], [0, 0], [0.2, 0.4], fold=1)
    other = table_of(["a"], [0], [0.9], fold=2)
    valid = table_of(["a"], [0], [0.7], fold=1, split="val")
    unknown = table_of(["a"], [-1], [0.99], fold=1)
    patients = patient_level(concatenate([known, other, valid, unknown]))
    rows = zip(patients.split, patients.fold, patients.probabilities[:, 1], strict=True)
    expected = {("test", 1): 0.3, ("test", 2): 0.9, ("val", 1): 0.7}
    assert {(s, f): pytest.approx(p) for s, f, p in rows} == expected


def test_both_levels_give_the_mean_and_the_standard_deviation_over_folds():
    rng, folds = np.random.default_rng(0), []
    for fold in range(3):
        patients = np.repeat(np.arange(20), rng.integers(1, 4, 20))
        targets = patients % 2
        scores = np.clip(0.5 + 0.3 * (targets - 0.5) + 0.2 * rng.normal(size=len(targets)), 0, 1)
        folds.append(table_of([f"{fold}-{p}" for p in patients], targets, scores, fold))
    levels = level_estimates(concatenate(folds))
    for level, tables in (("image", folds), ("patient", [patient_level(table) for table in folds])):
        areas = [metric_values(table.target, table.probabilities)["auc"] for table in tables]
        assert levels[level]["auc"].value == pytest.approx(np.mean(areas))
        assert levels[level]["auc"].sd == pytest.approx(np.std(areas, ddof=1))
        assert levels[level]["auc"].low < np.mean(areas) < levels[level]["auc"].high
    assert levels["image"]["auc"].value != levels["patient"]["auc"].value


def test_an_image_without_patient_and_a_strange_rule_are_refused():
    with pytest.raises(UserError, match="0-1 has no patient id .1 such.*data.patient_pattern"):
        patient_level(table_of(["a", ""], [0, 1], [0.2, 0.3]))
    with pytest.raises(UserError, match="rule='all' is none of any, same"):
        patient_level(table_of(["a"], [0], [0.2]), rule="all")
    with pytest.raises(UserError, match="no image has a known target"):
        patient_level(table_of(["a"], [-1], [0.2]))


def test_levels_are_told_apart_only_where_patients_have_several_images():
    assert several_images(table_of(["a", "a", "b"], [0, 0, 1], [0.1, 0.2, 0.3]))
    assert not several_images(table_of(["a", "b"], [0, 1], [0.1, 0.2]))
    assert not several_images(table_of(["a", "a", ""], [0, 0, 1], [0.1, 0.2, 0.3]))
    again = concatenate([table_of(["a", "b"], [0, 1], [0.1, 0.2], fold=f) for f in range(2)])
    assert not several_images(again)
    assert list(estimates_by_level(again)) == ["image"]


def test_more_than_two_classes_need_patients_of_one_class():
    table = table_of(["a", "a", "b"], [0, 1, 1], [0.1, 0.2, 0.3])
    assert several_images(table)
    three = replace(table, classes=("x", "y", "z"), probabilities=np.full((3, 3), 1 / 3))
    assert not several_images(three) and several_images(replace(three, target=np.array([0, 0, 2])))


def test_the_report_shows_both_levels_of_one_network(tmp_path):
    table = make_images(30, split="test")
    page, levels = build(tmp_path, [table], features=False), level_estimates(table)
    cells = []
    for level in ("image", "patient"):
        value = levels[level]["auc"]
        cells.append(f"{value.value:.3f} {value.low:.3f} to {value.high:.3f}")
    assert f"AUC {' '.join(cells)}" in page.text and f"Metric {len(table)} images 30 patients Method" in page.text
    assert "A patient is malignant if any of the images is." in page.text
    assert levels["patient"]["auc"].method == "DeLong, logit scale, 30 independent patients" in page.text
    metrics = write_metrics(tmp_path)["test"]
    assert metrics["patient/auc"]["low"] == levels["patient"]["auc"].low and metrics["auc"]["low"] == levels["image"]["auc"].low
