"""Mask metrics of a split: which images each average is about, and how sure it is."""

import math

import numpy as np
import pytest

from jaxmed.evaluate.mask_scores import mask_scores
from jaxmed.evaluate.masks import LABELS, mask_estimates, mask_values, weighted_masks
from jaxmed.evaluate.resample import draw_clusters
from jaxmed.evaluate.table import concatenate

from .synthetic import make_lesions, make_table


def table_of(pairs, groups=None):
    """A table of (predicted, true) masks."""
    table, scores = make_table(len(pairs), gates=False), [mask_scores(*pair) for pair in pairs]
    table.extras = {name: np.array([row[name] for row in scores]) for name in scores[0]}
    table.group = np.array(groups or table.case_id)
    return table


def block(pixels: int, start: int = 0) -> np.ndarray:
    mask = np.zeros(40, bool)
    mask[start : start + pixels] = True
    return mask.reshape(4, 10)


PAIRS = [
    (block(10), block(20)),  # half of the lesion
    (block(8), block(4)),  # twice the lesion
    (block(0), block(12)),  # nothing drawn
    (block(3, 30), block(5)),  # drawn elsewhere
    (block(0), block(0)),  # normal
    (block(6), block(0)),  # false alarm
]


def test_each_average_is_about_its_images():
    values = mask_values(table_of(PAIRS))
    assert values["lesions/iou"] == pytest.approx((0.5 + 0.5 + 0 + 0) / 4)
    assert values["lesions/dice"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    assert values["lesions/sensitivity"] == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert values["lesions/precision"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert values["all/iou"] == pytest.approx((0.5 + 0.5 + 0 + 0 + 1 + 0) / 6)
    assert values["all/dice"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 0 + 1 + 0) / 6)
    assert values["lesions/missed"] == 2 / 4 and values["normal/false_alarm"] == 1 / 2


def test_pooled_metrics_count_the_pixels_of_all_images_together():
    predicted, true = (np.concatenate([pair[k].ravel() for pair in PAIRS]) for k in (0, 1))
    values, expected = mask_values(table_of(PAIRS)), mask_scores(predicted[None], true[None])
    for name in ("iou", "dice"):
        assert values[f"pooled/{name}"] == pytest.approx(expected[name])
    for name in ("sensitivity", "precision"):
        assert values[f"pooled/{name}"] == pytest.approx(expected[f"mask_{name}"])


def test_the_papers_dice_is_computed_from_its_iou():
    """Table 1 of the paper: IoU 74.50, Dice 85.25 (its printed digits agree within 0.15)."""
    values = mask_values(table_of(PAIRS))
    assert values["lesions/dice_of_mean_iou"] == pytest.approx(2 * 0.25 / 1.25)
    assert values["lesions/dice_of_mean_iou"] != pytest.approx(values["lesions/dice"])
    assert 2 * 0.745 / 1.745 == pytest.approx(0.8525, abs=0.0015)


def test_distances_are_means_over_lesions_with_a_drawing_and_say_how_many_lack_one():
    table = table_of(PAIRS)
    found = mask_estimates(table)["lesions/hd95"]
    assert found.value == pytest.approx(np.nanmean(table.extras["hd95"]))
    assert "1 of 4 lesions without a drawn mask left out" in found.method
    assert "left out" not in mask_estimates(table)["lesions/iou"].method


def test_images_without_a_known_mask_do_not_count():
    table, _ = make_lesions(30)
    expected = mask_values(table.take(np.arange(30) != 5))
    for name in ("iou", "dice", "hd95", "lesion_pixels", "mask_tp"):
        table.extras[name][5] = np.nan
    assert {name: value.value for name, value in mask_estimates(table).items()} == pytest.approx(expected)


def test_without_mask_columns_or_known_masks_there_is_nothing():
    table, _ = make_lesions(6)
    table.extras["iou"][:] = np.nan
    assert mask_estimates(table) == mask_estimates(make_table(6)) == {}


def test_a_resample_has_the_metrics_of_its_repeated_rows():
    table, _ = make_lesions(12)
    counts = np.random.default_rng(0).integers(0, 3, (4, 12))
    sampled = weighted_masks(table, counts)
    for row, count in enumerate(counts):
        expected = mask_values(table.take(np.repeat(np.arange(12), count)))
        assert {name: value[row] for name, value in sampled.items()} == pytest.approx(expected, nan_ok=True)


def test_intervals_hold_the_value_and_widen_with_the_clusters():
    table, _ = make_lesions(60)
    alone = mask_estimates(table)
    table.group = np.array([f"g{k // 6}" for k in range(60)])
    grouped = mask_estimates(table)
    for name in ("lesions/iou", "all/iou", "pooled/dice"):
        assert alone[name].low < alone[name].value < alone[name].high
    assert "cluster bootstrap over 10 patients" in grouped["lesions/iou"].method
    assert grouped["all/iou"].low != alone["all/iou"].low


def test_the_resamples_are_those_of_the_class_metrics():
    table, _ = make_lesions(60)
    lesion = (table.extras["lesion_pixels"] > 0).astype(int)
    np.testing.assert_array_equal(draw_clusters(table.clusters(), lesion), draw_clusters(table.clusters(), table.target))


def test_no_missed_lesion_gives_an_exact_bound_and_no_normal_image_no_number():
    table = table_of([(block(5), block(6)), (block(7), block(8)), (block(9), block(9))])
    found = mask_estimates(table)
    missed = found["lesions/missed"]
    assert missed.method.endswith("over 3 independent groups: none seen")
    assert (missed.value, missed.low) == (0, 0) and missed.high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert math.isnan(found["normal/false_alarm"].value) and "not defined" in found["normal/false_alarm"].method


def test_several_networks_give_mean_and_sd_of_their_metrics():
    tables = [make_lesions(30, seed=r, repeat=r)[0] for r in range(3)]
    found = mask_estimates(concatenate(tables))
    assert list(found) == list(LABELS)
    for name in ("lesions/iou", "pooled/iou", "lesions/dice_of_mean_iou"):
        runs = [mask_values(table)[name] for table in tables]
        assert found[name].value == pytest.approx(np.mean(runs)) and found[name].sd == pytest.approx(np.std(runs, ddof=1))
        assert found[name].runs == pytest.approx(runs) and found[name].low < found[name].value < found[name].high
    assert "3 of 60 lesions without a drawn mask left out, all networks together" in found["lesions/asd"].method
