import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxmed.data.augment_masks import DEFAULT, augment, bent_grid, check_options, curved, moved
from jaxmed.errors import UserError

DISC = np.zeros((96, 96), np.uint8)
cv2.circle(DISC, (40, 52), 20, 1, -1)
ALL = check_options(DEFAULT | {"rotate": 1.0, "elastic": 1.0})


def draw(seed: int, options) -> tuple[np.ndarray, np.ndarray]:
    return augment(200 * DISC, DISC, np.random.default_rng(seed), check_options(options))


def test_the_mask_follows_the_image_through_every_transform():
    for seed in range(20):
        image, mask = draw(seed, ALL)
        assert set(np.unique(mask)) == {0, 1}
        assert np.mean((image > 100) != mask) < 0.01  # bilinear against nearest: less than half a pixel along the border
        assert np.mean(mask != DISC) > 0.01


def test_the_same_generator_gives_the_same_pictures_and_switching_elastic_off_leaves_flips_and_turns():
    for seed in range(20):
        for one, two in zip(draw(seed, ALL), draw(seed, ALL), strict=True):
            np.testing.assert_array_equal(one, two)
    turned = [draw(seed, ALL | {"elastic": 0.0})[1] for seed in range(20)]
    bent = [draw(seed, ALL | {"elastic": 0.3})[1] for seed in range(20)]
    same = sum(np.array_equal(a, b) for a, b in zip(turned, bent, strict=True))
    assert 10 <= same <= 18  # about 14 of 20 draws are not bent


def test_flips_and_turns_happen_as_often_as_asked():
    rng = np.random.default_rng(0)

    def masks(**options):
        return [augment(DISC, DISC, rng, check_options(options))[1] for _ in range(400)]

    turned = [not np.array_equal(mask, DISC) for mask in masks(rotate=0.7)]
    assert np.mean(turned) == pytest.approx(0.7, abs=0.07)
    flips = masks(hflip=0.5)
    assert np.mean([np.array_equal(mask, DISC[:, ::-1]) for mask in flips]) == pytest.approx(0.5, abs=0.08)
    assert all(np.array_equal(mask, DISC) or np.array_equal(mask, DISC[:, ::-1]) for mask in flips)


def test_outside_the_picture_is_its_mirror_image_and_never_black():
    gray = np.full((64, 64), 90, np.uint8)
    image, mask = augment(gray, np.ones_like(gray), np.random.default_rng(1), ALL)
    assert (image == 90).all() and (mask == 1).all()


def test_the_deformation_is_smoothed_uniform_noise_times_alpha():
    places = bent_grid((80, 60), np.random.default_rng(3), (40.0, 40.0), (5.0, 5.0))
    rng = np.random.default_rng(3)
    rng.uniform(size=2)
    noise = rng.uniform(-1.0, 1.0, (2, 80, 60))
    rows, columns = np.indices((80, 60))
    for place, field, start in zip(places, noise, (columns, rows), strict=True):
        np.testing.assert_allclose(place - start, 40 * gaussian_filter(field, 5.0, mode="mirror"), atol=0.02)


def test_pixels_come_from_the_places_named():
    rows, columns = np.indices((8, 9)).astype(np.float32)
    picture = (10 * rows + columns).astype(np.uint8)
    np.testing.assert_array_equal(moved(picture, np.stack([columns + 1, rows]), cv2.INTER_LINEAR)[:, :-1], picture[:, 1:])


def test_zoom_scales_image_and_mask_within_its_range_and_both_ways():
    areas = []
    for seed in range(60):
        image, mask = draw(seed, {"zoom": 0.25})
        assert np.mean((image > 100) != mask) < 0.01
        areas.append(mask.sum() / DISC.sum())
    assert min(areas) < 0.75 and max(areas) > 1.3
    assert 0.62 < min(areas) and max(areas) < 1.6  # 1.25 squared either way, and the border's pixels


def test_gamma_bends_the_gray_levels_of_the_image_alone():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(curved(ramp, 1.0), ramp)
    middles = []
    for seed in range(60):
        image, mask = augment(ramp, ramp // 200, np.random.default_rng(seed), check_options({"gamma": 0.3}))
        assert image[0, 0] == 0 and image[-1, -1] == 255 and (np.diff(image.ravel().astype(int)) >= 0).all()
        np.testing.assert_array_equal(mask, ramp // 200)
        middles.append(image[8, 0])  # 128
    assert 103 <= min(middles) < 112 and 142 < max(middles) <= 151  # 255 (128 / 255) ** 1.3 and ** (1 / 1.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shear": 1.0}, "augment.shear is unknown"), ({"zoom": 2.0}, "zoom=2 must lie between 0 and 1"),
        ({"rotate": 1.5}, "rotate=1.5 must lie between 0 and 1"),
        ({"degrees": 200}, "between 0 and 180"), ({"alpha": (50, 34)}, "augment.alpha"), ({"sigma": 5}, "augment.sigma"),
    ],
)  # fmt: skip
def test_wrong_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        check_options(options)
