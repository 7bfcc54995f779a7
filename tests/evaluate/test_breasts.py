"""Tables of breasts: tasks and sides are found by their columns, and a study's two breasts are one cluster."""

import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.evaluate.breasts import (
    by_side,
    missing_classes,
    of_task,
    one_per_study,
    rows_about,
    second_tasks,
    task_parts,
    unit_of,
    views_present,
)
from jaxmed.evaluate.table import read_predictions, write_predictions

from .synthetic import BIRADS, VIEWS, make_breasts, make_table


def row(**more) -> dict:
    start = {"case_id": "1:left", "patient_id": "", "group": "", "split": "test", "fold": 0, "repeat": 0, "target": "b",
             "prob_a": 0.5, "prob_b": 0.5, "study_id": "20240101123456789", "side": "left", "views": "L_CC"}
    return start | more


def written(path, rows):
    write_predictions(path / "p.csv", rows)
    return read_predictions(path / "p.csv")


def test_further_tasks_are_found_by_their_columns():
    table = make_breasts(4)
    assert second_tasks(table.extras) == {"birads": BIRADS}
    assert second_tasks(make_table(4).extras) == {} and second_tasks(["x_target", "x_prob_a"]) == {}
    density = [f"density_{column}" for column in ("target", "prob_A", "prob_B", "prob_C")]
    assert second_tasks([*table.extras, *density]) == {"birads": BIRADS, "density": ("A", "B", "C")}


def test_the_table_of_a_task_has_its_classes_targets_and_probabilities(tmp_path):
    further = {"grade_target": "3", "grade_prob_1": 0.2, "grade_prob_3": 0.8}
    table = written(tmp_path, [row(**further), row(**further | {"case_id": "1:right", "side": "right", "grade_target": ""})])
    grade = of_task(table, "grade")
    assert grade.classes == ("1", "3") and grade.target.tolist() == [1, -1]
    np.testing.assert_array_equal(grade.probabilities, [[0.2, 0.8], [0.2, 0.8]])
    assert set(grade.extras) == {"study_id", "side", "views"}


def test_names_that_look_like_numbers_stay_text(tmp_path):
    rows = [row(), row(case_id="2:left", study_id="20240101123456788")]
    table = written(tmp_path, rows)
    assert table.extras["study_id"].tolist() == ["20240101123456789", "20240101123456788"]
    assert list(table.rows()) == rows


@pytest.mark.parametrize(("further", "message"), [
    ({"grade_target": "2", "grade_prob_1": 0.2, "grade_prob_3": 0.8}, "line 2: grade_target '2' is none of the classes 1, 3"),
    ({"grade_target": "1", "grade_prob_1": 1.2, "grade_prob_3": 0.8}, "line 2: grade_prob_1 is '1.2'"),
])
def test_a_broken_further_task_names_its_line(tmp_path, further, message):
    with pytest.raises(UserError, match=message):
        written(tmp_path, [row(**further)])


def test_sides_are_left_right_and_both():
    table = make_breasts(10)
    sides = by_side(table)
    assert list(sides) == ["left", "right", "both"] and list(by_side(make_table(4))) == ["all"]
    assert set(sides["right"].extras["side"]) == {"right"} and len(sides["left"]) + len(sides["right"]) == len(table)


def test_parts_hold_the_known_rows_of_every_task_and_side():
    table = make_breasts(20)
    parts = {(part.task, part.side): part.table for part in task_parts(table, "malignancy")}
    assert list(parts) == [(t, s) for t in ("malignancy", "birads") for s in ("left", "right", "both")]
    known = table.extras["birads_target"] != ""
    assert len(parts["birads", "both"]) == known.sum() < len(table)
    assert len(parts["malignancy", "right"]) == (table.known().extras["side"] == "right").sum()
    assert all((part.target >= 0).all() for part in parts.values())


def test_a_plain_table_has_no_parts_and_a_side_without_truth_is_left_out():
    assert task_parts(make_table(6)) == []
    table = make_breasts(10, second=False)
    table.target[table.extras["side"] == "right"] = -1
    assert [(part.task, part.side) for part in task_parts(table)] == [("label", "left"), ("label", "both")]


def test_both_breasts_of_a_study_are_one_cluster_without_patients_and_groups():
    table = make_breasts(6)
    table.patient_id[:], table.group[:] = "", ""
    studies, clusters = np.unique(table.extras["study_id"], return_inverse=True)[1], table.clusters()
    assert len(set(zip(studies, clusters, strict=True))) == len(set(clusters)) == 6


def test_classes_that_one_network_never_saw_are_named():
    table = make_breasts(30, fold=0)
    other = make_breasts(30, fold=1)
    assert missing_classes(table) == ()
    table.fold[table.target == 1] = 1
    assert missing_classes(table) == ("non-malignant", "malignant") and missing_classes(other) == ()


def test_views_are_read_from_the_text_and_studies_counted_once():
    table = make_breasts(10)
    studies = one_per_study(table)
    assert len(studies) == 10 and unit_of(table) == "breast" and unit_of(make_table(3)) == "case"
    present = views_present(studies, list(VIEWS))
    np.testing.assert_array_equal(present[[0, 3, 8]], [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]])


def test_a_view_is_about_the_breasts_of_its_side_that_have_it():
    table = make_breasts(10)
    rows = table.take(rows_about(table, "L_MLO"))
    assert set(rows.extras["side"]) == {"left"} and "test-s003" not in rows.extras["study_id"].tolist() and len(rows) == 9
    assert rows_about(make_table(5), "core").all()
