"""The most wrong cases, and that a picture is always the one of its caption."""

import numpy as np
import pytest
from matplotlib.image import imread

from jaxmed.evaluate.table import concatenate, read_predictions
from jaxmed.evaluate.wrong import most_wrong, outlined, save_case_pictures, wrong_cases, wrong_strip

from .synthetic import make_table, write_workdir


def test_the_case_with_the_lowest_true_probability_comes_first():
    table = make_table(30)
    cases = most_wrong(table, 5)
    of_truth = table.probabilities[np.arange(30), table.target]
    assert [case.case_id for case in cases] == table.case_id[np.argsort(of_truth)[:5]].tolist()
    assert cases[0].probability == pytest.approx(of_truth.min())


def test_a_right_case_among_the_worst_is_called_right():
    table = make_table(4)
    table.probabilities = np.where(np.eye(2)[table.target] > 0, 0.9, 0.1)
    case = most_wrong(table, 1)[0]
    assert not case.wrong and "right" in case.caption and "90.0 %" in case.caption


def test_repeats_are_averaged_per_case():
    cases = most_wrong(concatenate([make_table(12, repeat=r, seed=r) for r in range(3)]), 10)
    assert len({case.case_id for case in cases}) == 10


def test_pictures_follow_their_case_when_the_predictions_change(tmp_path):
    table = make_table(20, split="test")
    level = {name: 10 * i for i, name in enumerate(table.case_id)}
    write_workdir(tmp_path, [table, make_table(10, split="val")])
    save_case_pictures(tmp_path, lambda name: np.full((8, 8), level[name], np.uint8), count=4)
    changed = read_predictions(tmp_path / "predictions.csv").select(split="test")
    changed.probabilities = changed.probabilities[:, ::-1]
    for now in (table, changed):
        for case in wrong_cases(tmp_path, now, 20):
            if case.picture:
                assert round(255 * imread(case.picture)[0, 0, 0]) == level[case.case_id]
    assert sum(case.picture is not None for case in wrong_cases(tmp_path, table, 4)) == 4


def test_the_outline_lies_inside_the_mask_and_keeps_the_rest():
    image, mask = np.full((40, 40), 100, np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    picture = outlined(image, mask)
    yellow = (picture != 100).any(-1)
    assert yellow[10, 10:30].all() and not yellow[mask == 0].any() and not yellow[20, 20]
    assert (image == 100).all()


def test_the_strip_has_one_panel_per_picture(tmp_path):
    write_workdir(tmp_path, [make_table(20)])
    save_case_pictures(tmp_path, lambda name: np.zeros((6, 9), np.uint8), count=7)
    figure = wrong_strip(wrong_cases(tmp_path, make_table(20), 7))
    assert sum(bool(ax.images) for ax in figure.axes) == 7
