"""The scores of one mask against formulas in plain loops."""

import numpy as np
import pytest

from jaxmed.evaluate.mask_scores import border, mask_scores, surface_distances


def square(top: int, left: int, side: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def border_points(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    points = []
    for y, x in np.argwhere(mask):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        if any(not (0 <= a < height and 0 <= b < width) or not mask[a, b] for a, b in near):
            points.append((y, x))
    return np.array(points, float)


def brute_force_distances(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    a, b = border_points(first), border_points(second)
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    there, back = apart.min(1), apart.min(0)
    hausdorff = max(np.percentile(there, 95), np.percentile(back, 95))
    return hausdorff, (there.sum() + back.sum()) / (len(a) + len(b))


def test_counts_and_overlaps_follow_their_formulas():
    scores = mask_scores(square(4, 4, 10), square(6, 4, 10))
    assert (scores["mask_tp"], scores["mask_fp"], scores["mask_fn"]) == (80, 20, 20)
    assert scores["iou"] == pytest.approx(80 / 120)
    assert scores["dice"] == pytest.approx(160 / 200)
    assert scores["mask_sensitivity"] == scores["mask_precision"] == pytest.approx(0.8)
    assert (scores["lesion_pixels"], scores["predicted_pixels"], scores["mask_pixels"]) == (100, 100, 1024)


def test_sensitivity_is_about_the_true_mask_and_precision_about_the_predicted():
    scores = mask_scores(square(4, 4, 5), square(4, 4, 10))
    assert (scores["mask_sensitivity"], scores["mask_precision"]) == (0.25, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_surface_distances_equal_those_of_a_search_over_all_pairs(seed):
    rng = np.random.default_rng(seed)
    masks = [square(*rng.integers(0, 15, 2), rng.integers(1, 17)) | (rng.random((32, 32)) < 0.01) for _ in range(2)]
    np.testing.assert_allclose(surface_distances(*masks), brute_force_distances(*masks), rtol=1e-12)


def test_surface_distances_do_not_depend_on_the_order_of_the_masks():
    first, second = square(2, 2, 5), square(8, 9, 20)
    np.testing.assert_allclose(surface_distances(first, second), surface_distances(second, first), rtol=1e-12)


def test_a_square_moved_by_three_pixels_is_three_pixels_away_at_most():
    hd95, asd = surface_distances(square(4, 4, 10), square(7, 4, 10))
    assert hd95 == 3.0
    assert 0 < asd < 3


def test_equal_masks_agree_in_everything():
    scores = mask_scores(square(0, 0, 7), square(0, 0, 7))
    assert (scores["iou"], scores["dice"], scores["hd95"], scores["asd"]) == (1, 1, 0, 0)


def test_the_edge_of_the_picture_is_part_of_the_border():
    assert border(np.ones((4, 5), bool)).sum() == 14


def test_two_empty_masks_agree_and_have_no_distance():
    scores = mask_scores(np.zeros((8, 8), bool), np.zeros((8, 8), bool))
    assert (scores["iou"], scores["dice"]) == (1, 1)
    assert all(np.isnan(scores[name]) for name in ("hd95", "asd", "mask_sensitivity", "mask_precision"))


@pytest.mark.parametrize("predicted_empty", [True, False])
def test_one_empty_mask_scores_zero_and_has_no_distance(predicted_empty):
    masks = [np.zeros((32, 32), bool), square(3, 3, 4)]
    scores = mask_scores(*(masks if predicted_empty else masks[::-1]))
    assert (scores["iou"], scores["dice"]) == (0, 0)
    assert np.isnan(scores["hd95"]) and np.isnan(scores["asd"])
    assert np.isnan(scores["mask_precision" if predicted_empty else "mask_sensitivity"])


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 8\) and true mask \(9, 8\)"):
        mask_scores(np.zeros((8, 8), bool), np.zeros((9, 8), bool))
