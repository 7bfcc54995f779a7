import numpy as np
import pytest

from jaxmed.data import augment_auto
from jaxmed.data.augment_auto import POLICY, Draw, apply, auto_augment, draw, magnitude, operate
from tests.torchvision_cpu import import_torchvision

NOISE = np.random.default_rng(0).integers(20, 200, (40, 56), np.uint8)
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
# torchvision's names of what each operation does, with values of both signs at both ends of the range
PIXELS = {
    "Brightness": (-0.9, 0.3, 0.9), "Contrast": (-0.9, 0.3, 0.9), "Sharpness": (-0.9, 0.3, 0.9), "Posterize": (4, 6, 8),
    "Solarize": (0.0, 113.3, 170.0, 255.0), "AutoContrast": (0.0,), "Equalize": (0.0,), "Invert": (0.0,), "Color": (-0.9, 0.9),
}  # fmt: skip
GEOMETRY = {
    "ShearX": (-0.3, 0.2), "ShearY": (-0.2, 0.3), "TranslateX": (-7.9, 25.0), "TranslateY": (-12.0, 5.3), "Rotate": (-30.0, 17),
}  # fmt: skip


def image_of(name, value, image=NOISE):
    return operate(image, None, name, value)[0]


def dot(y, x, shape=(41, 61)):
    image = np.zeros(shape, np.uint8)
    image[y, x] = 200
    return image


def test_the_policy_has_25_known_pairs_and_torchvisions_magnitudes():
    assert len(POLICY) == 25 and all(len(pair) == 2 for pair in POLICY)
    shape = (224, 331)
    assert [magnitude("Posterize", level, shape) for level in range(10)] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert [magnitude("Solarize", level, shape) for level in (0, 3, 6, 9)] == [255, 170, 85, 0]
    assert magnitude("TranslateX", 9, shape) == 150 and magnitude("Rotate", 9, shape) == 30
    assert magnitude("ShearX", 3, shape) == pytest.approx(0.1) and magnitude("Contrast", 8, shape) == pytest.approx(0.8)
    assert magnitude("Equalize", None, shape) == 0


def test_tables_by_formula():
    np.testing.assert_array_equal(image_of("Invert", 0, LEVELS), 255 - LEVELS)
    np.testing.assert_array_equal(image_of("Posterize", 3, LEVELS), LEVELS // 32 * 32)
    np.testing.assert_array_equal(image_of("Solarize", 100, LEVELS), np.where(LEVELS < 100, LEVELS, 255 - LEVELS))
    np.testing.assert_array_equal(image_of("Brightness", -0.5, LEVELS), LEVELS // 2)
    np.testing.assert_array_equal(image_of("Brightness", 1.0, LEVELS), np.minimum(2 * LEVELS.astype(int), 255))
    np.testing.assert_array_equal(image_of("Color", 0.9, LEVELS), LEVELS)


def test_contrast_moves_levels_away_from_the_mean():
    image = np.full((4, 4), 100, np.uint8)
    image[:2] = 60  # mean 80
    changed = image_of("Contrast", 0.5, image)
    assert (changed[:2] == 50).all() and (changed[2:] == 110).all()


def test_autocontrast_stretches_to_the_full_range_and_leaves_flat_images():
    image = np.array([[40, 60], [75, 104]], np.uint8)
    np.testing.assert_array_equal(image_of("AutoContrast", 0, image), np.floor((image - 40.0) * 255 / 64))
    flat = np.full((3, 3), 7, np.uint8)
    np.testing.assert_array_equal(image_of("AutoContrast", 0, flat), flat)


def test_equalize_makes_the_levels_uniform():
    squared = (np.linspace(0, 1, 255 * 64) ** 2 * 100).astype(np.uint8).reshape(255, 64)  # dark levels are frequent
    equal = image_of("Equalize", 0, squared)
    assert abs(np.quantile(equal, [0.25, 0.5, 0.75]) - [64, 128, 191]).max() < 8
    flat = np.full((30, 30), 7, np.uint8)
    np.testing.assert_array_equal(image_of("Equalize", 0, flat), flat)


def test_sharpness_of_a_dot_and_untouched_borders():
    soft = image_of("Sharpness", -1.0, dot(20, 30))
    assert soft[20, 30] == round(200 * 5 / 13) and (soft[19:22, 29:32].ravel()[[0, 1, 2, 3, 5, 6, 7, 8]] == 15).all()
    borders = image_of("Sharpness", 0.9)[[0, -1]].astype(int) - NOISE[[0, -1]]
    assert set(np.unique(borders)) <= {-1, 0}  # 1.9 x - 0.9 x in float32 may lack the last bit, which drops a level
    assert image_of("Sharpness", 0.9).std() > NOISE.std()


def test_geometry_moves_a_marked_pixel_and_its_mask_alike():
    def place(name, value, y=20, x=30):
        image, mask = operate(dot(y, x), dot(y, x) // 200, name, value)
        assert image[mask > 0].min() > 50
        return tuple(int(i) for i in np.argwhere(mask > 0)[0])

    assert place("TranslateX", 7.9) == (20, 37) and place("TranslateX", -7.9) == (20, 23)
    assert place("TranslateY", 5.0) == (25, 30)
    assert place("Rotate", 90.0, y=20, x=40) == (10, 30)  # counter-clockwise about (20, 30)
    # the upper left corner of the picture stays: lower rows move left, later columns up
    assert place("ShearX", 0.2, y=21) == (21, 26) and place("ShearX", 0.2, y=1) == (1, 30)  # by 4.3 and by 0.3
    assert place("ShearY", -0.2, x=16) == (23, 16)  # by 3.3


def test_outside_is_zero_and_masks_stay_binary():
    image, mask = operate(np.full((40, 40), 9, np.uint8), np.ones((40, 40), np.uint8), "Rotate", 30.0)
    assert image[0, 0] == 0 and mask[0, 0] == 0 and image[20, 20] == 9
    assert set(np.unique(mask)) == {0, 1}


def test_the_second_operation_follows_the_first_and_chance_decides():
    both = apply(NOISE, None, Draw(0, (0.4, 0.6), (False, True)))[0]
    np.testing.assert_array_equal(both, image_of("Rotate", -30.0, image_of("Posterize", 4)))
    none = apply(NOISE, None, Draw(0, (0.41, 0.61), (False, False)))[0]
    np.testing.assert_array_equal(none, NOISE)


def test_draws_are_uniform_and_repeat_with_the_generator():
    rng = np.random.default_rng(0)
    taken = [draw(rng) for _ in range(5000)]
    assert np.bincount([one.policy for one in taken], minlength=25).min() > 140  # of 200 expected, sd 14
    assert np.mean([one.negative for one in taken]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([one.chance for one in taken]) == pytest.approx(0.5, abs=0.02)
    one, two = (auto_augment(NOISE, None, np.random.default_rng(3))[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def torchvision_image(name, value, image):
    """What torchvision makes of a gray image, with bilinear geometry."""
    torch, transforms = import_torchvision()
    apply_op, bilinear = transforms.autoaugment._apply_op, transforms.InterpolationMode.BILINEAR
    made = apply_op(torch.from_numpy(image.copy())[None], name, value, bilinear, None)
    return made[0].numpy()


@pytest.mark.parity
@pytest.mark.parametrize("name", PIXELS)
def test_levels_equal_torchvisions(name):
    """Contrast may differ by one level: the fraction is dropped, and the mean's last bit depends on the order of its sum."""
    for value in PIXELS[name]:
        for image in (NOISE, LEVELS, np.full((5, 6), 77, np.uint8)):
            ours, theirs = image_of(name, value, image), torchvision_image(name, value, image)
            difference = np.abs(ours.astype(int) - theirs)
            assert difference.max() <= (name == "Contrast") and (difference > 0).mean() < 0.01


@pytest.mark.parity
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_equals_torchvisions(name):
    """OpenCV interpolates at 1/32 of a pixel: up to 1/64 of the step between neighbours in each direction, then rounding."""
    y, x = np.mgrid[:97, :129]
    waves = (127 + 60 * np.sin(x / 5) + 60 * np.cos(y / 4)).astype(np.uint8)  # neighbours differ by at most 16 levels
    for value in GEOMETRY[name]:
        difference = np.abs(image_of(name, value, waves).astype(int) - torchvision_image(name, value, waves))
        inside = image_of(name, value, np.full_like(waves, 255)) == 255
        assert difference[inside].max() <= 1
        assert difference.max() <= 1 + 255 / 32  # at the border the step is from the picture to 0


@pytest.mark.parity
def test_the_policy_and_its_magnitudes_are_torchvisions():
    _, transforms = import_torchvision()
    theirs = transforms.AutoAugment()
    assert tuple(theirs.policies) == POLICY
    for name, (values, signed) in theirs._augmentation_space(10, (224, 331)).items():
        assert signed == (name in augment_auto.SIGNED)
        if values.ndim:
            assert [magnitude(name, level, (224, 331)) for level in range(10)] == pytest.approx(values.tolist(), rel=1e-5)
