"""Mammograms made alike: chest wall to the left whatever the header says, cropped, resized."""

import numpy as np
import pytest
from dicom_files import half_bright

from jaxmed.data import breast


def test_right_breasts_are_mirrored_and_left_ones_are_not():
    left, right = half_bright(), half_bright(right=True)
    assert breast.orient(left, "L") is left
    np.testing.assert_array_equal(breast.orient(right, "R"), left)


def test_pixels_win_over_a_wrong_side():
    left = half_bright()
    np.testing.assert_array_equal(breast.orient(left, "R"), left)
    assert (breast.chest_wall(left), breast.chest_wall(left[:, ::-1])) == ("left", "right")


def test_where_pixels_do_not_tell_the_laterality_does():
    blob = np.zeros((40, 40), np.uint8)
    blob[10:30, 10:30] = np.arange(100, 120)
    assert breast.chest_wall(blob) == ""
    np.testing.assert_array_equal(breast.orient(blob, "R"), blob[:, ::-1])
    np.testing.assert_array_equal(breast.orient(blob, "L"), blob)


def test_a_label_and_a_film_border_are_not_the_breast():
    pixels = half_bright((256, 200)).astype(np.float32)
    plain = breast.breast_mask(pixels)
    pixels[8:24, 160:190] = 4000  # a bright label
    pixels[:2] = 4000  # the border of a film, which touches nothing but the frame
    mask = breast.breast_mask(pixels)
    assert not mask[:3].any() and not mask[:30, 150:].any()
    assert (mask & plain).sum() > 0.97 * plain.sum()


def test_the_crop_keeps_the_breast_and_little_else():
    pixels = half_bright((600, 400))
    cropped = breast.crop_breast(pixels)
    assert cropped.shape[1] == pytest.approx(200, abs=12) and cropped.shape[0] <= 600
    assert cropped.sum() == pytest.approx(pixels.sum(), rel=0.01)


def test_resizing_averages_areas_and_takes_any_shape():
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint16(1000)
    assert (breast.resize(checks.astype(np.uint16), 32) == 500).all()
    assert breast.resize(checks.astype(np.uint16), (40, 100)).shape == (40, 100)


def test_gray_levels_are_rounded_to_8_bits():
    np.testing.assert_array_equal(breast.to_uint8(np.array([[0, 128, 129, 65535]], np.uint16)), [[0, 0, 1, 255]])
