import numpy as np
import pytest

from jaxmed.data.augment import DEFAULT, Draw, apply, augment, check_options, draw
from jaxmed.errors import UserError

IMAGE = np.random.default_rng(0).integers(1, 255, (33, 33), np.uint8)
MASK = (np.random.default_rng(1).random((33, 33)) > 0.5).astype(np.uint8)


def draws(count, options):
    rng = np.random.default_rng(0)
    return [draw(rng, options) for _ in range(count)]


def test_flips_and_angles_have_the_papers_distribution():
    taken = draws(4000, DEFAULT)
    angles = np.array([one.degrees for one in taken])
    assert np.mean([one.hflip for one in taken]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([one.vflip for one in taken]) == pytest.approx(0.5, abs=0.03)
    assert -15 <= angles.min() < -14.9 and 14.9 < angles.max() <= 15
    assert angles.std() == pytest.approx(15 / np.sqrt(3), rel=0.03)  # uniform


def test_switching_one_option_off_leaves_the_other_draws_alone():
    full, still = draws(50, DEFAULT), draws(50, DEFAULT | {"degrees": 0.0})
    assert [(one.hflip, one.vflip) for one in full] == [(one.hflip, one.vflip) for one in still]


def test_flips_are_exact_and_the_same_for_both():
    image, mask = apply(IMAGE, MASK, Draw(hflip=True, vflip=False, degrees=0.0))
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    np.testing.assert_array_equal(mask, MASK[:, ::-1])
    image, _ = apply(IMAGE, MASK, Draw(hflip=False, vflip=True, degrees=0.0))
    np.testing.assert_array_equal(image, IMAGE[::-1])


def test_a_quarter_turn_about_the_centre_is_exact():
    image, mask = apply(IMAGE, MASK, Draw(False, False, 90.0))
    np.testing.assert_array_equal(image, np.rot90(IMAGE))
    np.testing.assert_array_equal(mask, np.rot90(MASK))


def test_image_and_mask_turn_together():
    disc = np.zeros((101, 101), np.uint8)
    disc[20:40, 30:60] = 1
    image, mask = apply(disc * 200, disc, Draw(True, True, 13.0))
    assert np.mean((image > 100) == (mask > 0)) > 0.995
    assert set(np.unique(mask)) == {0, 1}


def test_what_comes_in_from_outside_is_zero():
    image, mask = apply(np.full((33, 33), 9, np.uint8), np.ones((33, 33), np.uint8), Draw(False, False, 15.0))
    assert image[0, 0] == 0 and mask[0, 0] == 0
    assert image[16, 16] == 9


def test_the_same_generator_state_gives_the_same_picture():
    one = augment(IMAGE, MASK, np.random.default_rng(5), DEFAULT)
    two = augment(IMAGE, MASK, np.random.default_rng(5), DEFAULT)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hflip": 2}, "hflip=2 must lie between 0 and 1"),
        ({"degrees": -3}, "degrees=-3"),
        ({"shear": 1}, "augment.shear is unknown"),
    ],
)
def test_bad_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        check_options(options)


def test_missing_options_mean_that_nothing_is_done():
    assert check_options({"hflip": 1}) == {"hflip": 1.0, "vflip": 0.0, "degrees": 0.0}
