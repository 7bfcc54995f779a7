"""predictions.csv: exact floats, clear errors, and which rows depend on each other."""

import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.evaluate.metrics import metric_values
from jaxmed.evaluate.table import concatenate, read_predictions, write_predictions

from .synthetic import make_lesions, make_table


def test_a_table_comes_back_exactly(tmp_path):
    table = make_table(20)
    write_predictions(tmp_path / "p.csv", table)
    back = read_predictions(tmp_path / "p.csv")
    assert back.classes == table.classes and list(back.extras) == list(table.extras)
    for name in ("case_id", "group", "split", "fold", "repeat", "target", "probabilities"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    assert metric_values(back.target, back.probabilities) == metric_values(table.target, table.probabilities)


def test_float32_rows_keep_every_bit(tmp_path):
    value = np.float32(1) / np.float32(3)
    row = {"case_id": "a", "patient_id": "", "group": "g", "split": "test", "fold": 0, "repeat": 0, "target": "b",
           "prob_a": 1 - value, "prob_b": value, "gate_core": value}
    write_predictions(tmp_path / "p.csv", [row])
    table = read_predictions(tmp_path / "p.csv")
    assert np.float32(table.probabilities[0, 1]) == value and np.float32(table.extras["gate_core"][0]) == value


def test_an_unknown_target_is_minus_one_and_left_out_of_known(tmp_path):
    rows = list(make_table(4).rows())
    rows[2]["target"] = ""
    write_predictions(tmp_path / "p.csv", rows)
    table = read_predictions(tmp_path / "p.csv")
    assert table.target[2] == -1 and len(table.known()) == 3


@pytest.mark.parametrize(("old", "new", "message"), [
    ("prob_benign", "benign", "two or more classes"),
    ("split", "part", "lacks split"),
    (",malignant,", ",malign,", "line 3: target 'malign'"),
    ("test-002", "test-001", "line 4: case test-001 was already on line 3"),
    ("test,0,0", "test,zero,0", "line 2: fold is 'zero'"),
])
def test_a_broken_file_names_the_place(tmp_path, old, new, message):
    path = tmp_path / "p.csv"
    write_predictions(path, make_table(4))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        read_predictions(path)
    assert "p.csv" in str(error.value)


def test_a_table_of_masks_alone_comes_back_and_keeps_the_names_of_its_targets(tmp_path):
    table, _ = make_lesions(9, classes=False)
    table.target[2], table.extras["iou"][4] = -1, np.nan
    write_predictions(tmp_path / "p.csv", table)
    back = read_predictions(tmp_path / "p.csv")
    assert back.masks_only and back.classes == ("benign", "malignant", "normal") and back.target[2] == -1
    assert "prob_" not in (tmp_path / "p.csv").read_text()
    np.testing.assert_array_equal(back.extras["hd95"], table.extras["hd95"])
    assert len(back.known()) == 8 and len(back.average_repeats()) == len(back.parts()[0]) == 9


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_probability_outside_0_to_1_names_its_line(tmp_path, value):
    rows = list(make_table(4).rows())
    rows[1]["prob_malignant"] = value
    write_predictions(tmp_path / "p.csv", rows)
    with pytest.raises(UserError, match="line 3: prob_malignant"):
        read_predictions(tmp_path / "p.csv")


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("")
    with pytest.raises(UserError, match="header lacks case_id"):
        read_predictions(tmp_path / "p.csv")
    write_predictions(tmp_path / "p.csv", make_table(1))
    (tmp_path / "p.csv").write_text((tmp_path / "p.csv").read_text().splitlines()[0])
    with pytest.raises(UserError, match="no rows"):
        read_predictions(tmp_path / "p.csv")


def test_a_short_line_is_named(tmp_path):
    write_predictions(tmp_path / "p.csv", make_table(3))
    with open(tmp_path / "p.csv", "a") as file:
        file.write("cut,off\n")
    with pytest.raises(UserError, match="line 5: 2 cells"):
        read_predictions(tmp_path / "p.csv")


def test_rows_of_different_columns_are_not_written(tmp_path):
    rows = list(make_table(3).rows())
    del rows[1]["gate_core"]
    with pytest.raises(UserError, match="line 3"):
        write_predictions(tmp_path / "p.csv", rows)
    assert not (tmp_path / "p.csv").exists()


def test_rows_that_share_a_case_a_patient_or_a_group_are_one_cluster():
    table = make_table(7)
    table.group[:] = ["g0", "g0", "g1", "g2", "", "", ""]
    table.patient_id[:] = ["", "p", "p", "", "", "", ""]
    table.case_id[6] = table.case_id[5]
    np.testing.assert_array_equal(table.clusters(), [0, 0, 0, 1, 2, 3, 3])


def test_a_patient_named_like_a_group_is_not_the_same_thing():
    table = make_table(2)
    table.group[:], table.patient_id[:] = ["1", "2"], ["2", "3"]
    assert len(set(table.clusters())) == 2


def test_parts_are_one_table_per_network():
    table = concatenate([make_table(4, repeat=r, fold=f) for r in (1, 0) for f in (0, 1)])
    assert [(part.repeat[0], part.fold[0]) for part in table.parts()] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_average_repeats_gives_one_row_per_case():
    first, second = make_table(5, repeat=0), make_table(5, repeat=1, seed=9)
    mean = concatenate([first, second.take(np.arange(5)[::-1])]).average_repeats()
    np.testing.assert_array_equal(mean.case_id, first.case_id)
    np.testing.assert_allclose(mean.probabilities, (first.probabilities + second.probabilities) / 2)
    np.testing.assert_allclose(mean.extras["gate_core"], (first.extras["gate_core"] + second.extras["gate_core"]) / 2)


def test_tables_of_other_classes_are_not_joined():
    with pytest.raises(UserError, match="differ in their columns"):
        concatenate([make_table(4), make_table(4, classes=("a", "b"))])
