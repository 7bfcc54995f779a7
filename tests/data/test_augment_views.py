"""Augmentation of four views: flips of a whole study, small affine changes of each view, draws that leave each other alone."""

import cv2
import numpy as np
import pytest

from jaxmed.data.augment_views import DEFAULT, augment_views, check_options
from jaxmed.errors import UserError

VIEWS = np.random.default_rng(0).integers(1, 255, (4, 24, 32), np.uint8)
FLIPPED = VIEWS[:, :, ::-1]
STILL = check_options({})


def changed(seed=0, views=VIEWS, **options):
    return augment_views(views, np.random.default_rng(seed), check_options(options))


def flips(seed, **options):
    """Which views a draw flips; every view is flipped or not, and nothing else."""
    out = changed(seed, **options)
    turned = [bool((out[k] == FLIPPED[k]).all()) for k in range(4)]
    assert all((out[k] == (FLIPPED if turned[k] else VIEWS)[k]).all() for k in range(4))
    return tuple(turned)


class Fixed:
    """A generator whose uniform draws are the given changes (angle, size, right, down), from -1 to 1; nothing flips."""

    def __init__(self, *change):
        self.change = change

    def random(self, size):
        return np.ones(size)

    def uniform(self, low, high, size):
        assert (low, high) == (-1.0, 1.0)
        return np.broadcast_to(self.change, size)


def test_without_options_nothing_happens():
    np.testing.assert_array_equal(changed(), VIEWS)
    assert STILL == {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "hflip": 0.0, "flip_views": False}


def test_the_views_of_a_study_flip_together_half_of_the_time():
    drawn = [flips(seed, hflip=0.5) for seed in range(400)]
    assert set(drawn) == {(True,) * 4, (False,) * 4}
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.07)


def test_flip_views_flips_each_view_on_its_own():
    drawn = [flips(seed, hflip=0.5, flip_views=True) for seed in range(400)]
    assert len(set(drawn)) == 16
    np.testing.assert_allclose(np.mean(drawn, 0), 0.5, atol=0.08)


def test_every_view_moves_in_its_own_way():
    same = np.broadcast_to(VIEWS[:1], VIEWS.shape)
    out = changed(views=same, **DEFAULT)
    assert all((out[i] != out[k]).any() for i in range(4) for k in range(i))


def test_missing_views_stay_zero():
    views = VIEWS * np.array([1, 0, 0, 1], np.uint8)[:, None, None]
    for seed in range(10):
        out = changed(seed, views=views, **DEFAULT)
        assert not out[1:3].any() and out[0].any() and out[3].any()


@pytest.mark.parametrize("option", ["degrees", "translate", "scale", "hflip"])
def test_switching_one_option_off_leaves_the_other_draws_alone(option):
    """One option alone does what it does among all others, where these would do nothing."""
    tiny = {key: 1e-12 for key in ("degrees", "translate", "scale", "hflip")}  # drawn, but too small to be seen
    alone = {option: DEFAULT[option]}
    for seed in range(5):
        together = changed(seed, **(tiny | alone))
        difference = np.abs(changed(seed, **alone).astype(int) - together)
        assert difference.max() <= 1 and (option == "hflip" or (together != VIEWS).any())


def test_one_draw_takes_as_many_numbers_whatever_is_switched_on():
    left = []
    for options in ({}, DEFAULT, {"hflip": 1.0}, {"degrees": 5.0, "flip_views": True}):
        rng = np.random.default_rng(3)
        augment_views(VIEWS, rng, check_options(options))
        left.append(rng.random())
    assert len(set(left)) == 1


def expected_place(row, column, change, options, height, width):
    """Where a pixel goes: turned (counter-clockwise on the screen) and scaled about the centre, then shifted."""
    angle, size = np.deg2rad(change[0] * options["degrees"]), 1 + change[1] * options["scale"]
    x, y = column - (width - 1) / 2, row - (height - 1) / 2
    turned = size * (np.cos(angle) * x + np.sin(angle) * y), size * (np.cos(angle) * y - np.sin(angle) * x)
    right, down = change[2] * options["translate"] * width, change[3] * options["translate"] * height
    return turned[1] + (height - 1) / 2 + down, turned[0] + (width - 1) / 2 + right


@pytest.mark.parametrize("change", [(0.5, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, -1), (-1, -0.6, 0.7, 0.4)])
def test_a_marked_spot_moves_to_the_place_of_the_formula(change):
    height, width, row, column = 90, 120, 30, 85
    options = check_options({"degrees": 30.0, "translate": 0.1, "scale": 0.2})
    spot = cv2.GaussianBlur(np.eye(1, height * width, row * width + column).reshape(height, width), (0, 0), 2.5)
    views = np.round(255 * spot / spot.max()).astype(np.uint8)[None].repeat(4, 0)
    out = augment_views(views, Fixed(*change), options)
    for view in out.astype(float):
        rows, columns = np.mgrid[:height, :width]
        centre = (view * rows).sum() / view.sum(), (view * columns).sum() / view.sum()
        np.testing.assert_allclose(centre, expected_place(row, column, change, options, height, width), atol=0.05)


def test_what_comes_in_from_outside_is_zero():
    out = augment_views(np.full((4, 20, 20), 200, np.uint8), Fixed(0, 0, 1, 0), check_options({"translate": 0.25}))
    assert (out[:, :, :5] == 0).all() and (out[:, :, 5:] == 200).all()


def test_the_same_generator_state_gives_the_same_views():
    np.testing.assert_array_equal(changed(5, **DEFAULT), changed(5, **DEFAULT))
    assert (changed(5, **DEFAULT) != changed(6, **DEFAULT)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vflip": 0.5}, "augment.vflip is unknown for views; choose from degrees"),
        ({"degrees": -3}, "augment.degrees=-3 must lie between 0 and 180"),
        ({"translate": 0.6}, "augment.translate=0.6 must lie between 0 and 0.5"),
        ({"scale": 0.6}, "augment.scale=0.6"),
        ({"hflip": 2}, "augment.hflip=2 must lie between 0 and 1"),
        ({"hflip": float("nan")}, "augment.hflip=nan"),
    ],
)
def test_bad_options_name_their_key(options, message):
    with pytest.raises(UserError, match=message):
        check_options(options)
