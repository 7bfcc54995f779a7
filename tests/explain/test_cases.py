"""Which cases are chosen, what is measured on them, and the files that show them."""

import csv

import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.explain.choose import asked, choose
from jaxmed.explain.localise import localise, upsampled
from jaxmed.explain.overlay import ATTENTION, Explained, HeatMap
from jaxmed.explain.page import file_names, write_page

CLASSES = ("benign", "malignant")


def row(case, malignant, target):
    return {"case_id": case, "target": target, "prob_benign": 1 - malignant, "prob_malignant": malignant}


ROWS = [row("a", 0.9, "malignant"), row("b", 0.8, "benign"), row("c", 0.01, "benign"), row("d", 0.45, "malignant"),
        row("e", 0.3, "benign"), row("f", 0.999, "")]  # fmt: skip


def unit(row):
    return row["case_id"]


def test_half_are_the_most_wrong_and_half_the_most_certain():
    assert choose(ROWS, CLASSES, unit, 4) == {
        "b": "most wrong", "d": "most wrong", "f": "most certain", "c": "most certain",
    }  # fmt: skip
    assert choose(ROWS, CLASSES, unit, 1) == {"b": "most wrong"}
    assert list(choose(ROWS, CLASSES, unit, 99)) == ["b", "d", "e", "f", "c", "a"]
    assert choose(ROWS, CLASSES, unit, 6)["e"] == "least sure"  # right, but nothing wrong was left


def test_without_labels_the_least_certain_take_the_place_of_the_wrong():
    unlabelled = [{**found, "target": ""} for found in ROWS]
    assert list(choose(unlabelled, CLASSES, unit, 3)) == ["d", "e", "f"]


def test_of_independent_findings_the_last_one_alone_decides():
    truth = {"a": (0.6, "malignant"), "b": (0.1, "malignant"), "c": (0.01, "benign")}
    found = [row(case, *said) | {"prob_benign": 0.95} for case, said in truth.items()]
    assert choose(found, CLASSES, unit, 2) == {"b": "most wrong", "c": "most certain"}
    assert choose(found, CLASSES, unit, 3)["a"] == "least sure"


def test_two_breasts_of_a_study_make_one_figure():
    assert list(choose(ROWS, CLASSES, lambda row: "ab" if row["case_id"] in "ab" else row["case_id"], 3)) == ["ab", "d", "f"]


def test_unknown_cases_are_all_named_with_close_ones():
    known = {"phantom 00012": "phantom 00012", "study:left": "study"}
    assert asked(["study:left"], known) == {"study": "asked for"}
    with pytest.raises(UserError, match=r"'phantom 0012' \(close: phantom 00012\); 'study:lft' \(close: study:left"):
        asked(["phantom 0012", "study:left", "study:lft"], known)


def test_share_of_heat_and_pointing_game_by_hand():
    heat, mask = np.zeros((4, 4)), np.zeros((4, 4), np.uint8)
    heat[1, 1], heat[1, 2], heat[3, 3] = 3.0, 1.0, 4.0
    mask[1, 1:3] = 1
    found = localise(heat, mask)
    assert (found.share, found.hit, found.area) == (0.5, False, 2 / 16)
    assert localise(heat * (mask + 0.5), mask).hit


def test_nothing_is_measured_without_a_mask_or_without_heat():
    heat, mask = np.ones((2, 2)), np.ones((4, 4), np.uint8)
    assert localise(heat, None) is None and localise(heat, 0 * mask) is None and localise(0 * heat, mask) is None


def test_cells_are_spread_evenly_over_the_picture():
    fine = upsampled(np.array([[0.0, 1.0], [0.0, 1.0]]), (4, 8))
    assert fine.shape == (4, 8)
    np.testing.assert_allclose(fine[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


def test_file_names_are_safe_and_do_not_collide():
    assert file_names(["a/b:c", "a b c", "A_b_c", "../..", "x-1.2"]) == [
        "a_b_c.png", "a_b_c_2.png", "A_b_c_3.png", "case.png", "x-1.2.png",
    ]  # fmt: skip


def test_page_table_and_pictures_belong_together(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[:8] = 1
    heat, picture = np.array([[1.0, 0.0], [0.0, 0.0]]), np.full((16, 16), 90, np.uint8)
    maps = (
        HeatMap("convnext", "image", heat, 0.25, "convnext.stages.3", explains="malignant"),
        HeatMap("swin", "image", 0 * heat, 0.0, "swin.layers.3", explains="malignant", gate=0.5),
        HeatMap("queries", "image", heat, 2.0, "queries", ATTENTION),
    )
    case = Explained("a <b>", {"image": picture}, maps, ("truth benign, network says malignant (61.0%)",), "most wrong", mask)
    page = write_page(tmp_path, [case], {"title": "t", "subtitle": "s", "notes": ["n"]}, log=lambda text: None)
    text, table = page.read_text(), list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert "a &lt;b&gt;" in text and 'src="a_b.png"' in text and (tmp_path / "a_b.png").read_bytes()[:4] == b"\x89PNG"
    assert [found["map"] for found in table] == ["convnext", "swin", "queries"]
    assert [found["empty"] for found in table] == ["0", "1", "0"] and table[1]["heat_in_mask"] == ""
    assert float(table[0]["heat_in_mask"]) > 0.8 and table[0]["pointing_hit"] == "1" and table[0]["mask_area"] == "0.5"
