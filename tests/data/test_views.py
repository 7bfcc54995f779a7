import cv2
import numpy as np
import pytest

from jaxmed.data.views import (
    boundary_mask,
    core_mask,
    derive_views,
    shorten,
    view_flags,
    view_report,
    view_warnings,
)

IMAGE = np.random.default_rng(0).integers(1, 255, (64, 64), np.uint8)  # no zeros: a zero in a view comes from its mask


def square(low, high, size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[low:high, low:high] = 1
    return mask


def test_the_core_is_the_lesion_less_five_pixels_on_each_side():
    core, count = core_mask(square(20, 44))
    np.testing.assert_array_equal(core, square(25, 39))
    assert count == 5


def test_the_boundary_is_a_ring_of_five_pixels_outside_the_lesion():
    np.testing.assert_array_equal(boundary_mask(square(20, 44)), square(15, 49) - square(20, 44))


def test_views_are_the_image_seen_through_their_masks():
    views = derive_views(IMAGE, square(20, 44), ("image", "core", "boundary", "mask"))
    np.testing.assert_array_equal(views["image"], IMAGE)
    np.testing.assert_array_equal(views["core"], IMAGE * square(25, 39))
    np.testing.assert_array_equal(views["boundary"], IMAGE * (square(15, 49) - square(20, 44)))
    np.testing.assert_array_equal(views["mask"], square(20, 44))
    assert all(view.dtype == np.uint8 for view in views.values())


def test_only_the_asked_views_are_made():
    assert list(derive_views(IMAGE, None, ("image",))) == ["image"]


def test_a_lesion_cut_by_the_edge_is_not_eroded_from_outside():
    core, _ = core_mask(square(0, 20))
    np.testing.assert_array_equal(core, square(0, 15))


@pytest.mark.parametrize(("side", "erosions"), [(13, 5), (11, 4), (10, 4), (7, 3), (3, 1), (2, 0), (1, 0)])
def test_a_tiny_lesion_is_eroded_as_often_as_it_can_bear(side, erosions):
    core, count = core_mask(square(30, 30 + side))
    assert count == erosions
    assert core.any()


def test_a_core_below_one_percent_of_the_lesion_counts_as_vanished():
    needle = np.zeros((64, 64), np.uint8)
    needle[40:49, 2:62] = 1  # 9 x 60: gone after 5 erosions
    needle[20:31, 2:13] = 1  # 11 x 11: of this one pixel is left, 0.2 % of both
    assert cv2.erode(needle, np.ones((3, 3), np.uint8), iterations=5).sum() == 1
    core, count = core_mask(needle)
    assert count == 4
    assert core.sum() >= 0.01 * needle.sum()


def test_an_empty_mask_shows_the_whole_image_instead_of_nothing():
    empty = np.zeros((64, 64), np.uint8)
    views = derive_views(IMAGE, empty, ("core", "boundary"))
    np.testing.assert_array_equal(views["core"], IMAGE)
    np.testing.assert_array_equal(views["boundary"], IMAGE)
    assert view_flags(empty) == ("empty_mask",)


def test_a_lesion_that_fills_the_picture_shows_it_whole_as_its_boundary():
    full = np.ones((64, 64), np.uint8)
    np.testing.assert_array_equal(derive_views(IMAGE, full, ("boundary",))["boundary"], IMAGE)
    assert view_flags(full) == ("no_boundary",)


class Masks:
    def __init__(self, *masks):
        self.masks = masks

    def load(self, index):
        return IMAGE, self.masks[index]


def test_the_report_counts_and_names_the_cases_of_each_rule():
    cache = Masks(square(20, 44), square(30, 32), np.zeros((64, 64), np.uint8), square(30, 33))
    report = view_report(cache, [0, 1, 2, 3], case_ids=["a", "b", "c", "d"])
    assert report == {"small_core": ["b", "d"], "empty_mask": ["c"], "no_boundary": []}
    sentences = view_warnings(report, total=4)
    assert len(sentences) == 2
    assert sentences[0].startswith("2 of 4 lesions too small for 5 erosions") and sentences[0].endswith("(b, d)")
    assert view_report(cache, [1]) == {"small_core": [1], "empty_mask": [], "no_boundary": []}


def test_long_lists_are_shortened():
    assert shorten("abc", 3) == "a, b, c"
    assert shorten("abcde", 3) == "a, b, c and 2 more"
