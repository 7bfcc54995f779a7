import numpy as np
import pytest

from jaxmed.data.augment_recipe import DEFAULT, augment, check_options
from jaxmed.errors import UserError

RNG = np.random.default_rng(0)
IMAGE, MASK = RNG.integers(1, 255, (48, 48), np.uint8), (RNG.random((48, 48)) > 0.5).astype(np.uint8)
OFF = check_options({})


def run(seed=0, image=IMAGE, mask=MASK, **options):
    return augment(image, mask, np.random.default_rng(seed), OFF | check_options(options))


def test_without_options_nothing_happens():
    image, mask = run()
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(mask, MASK)


def test_pictures_keep_their_size_and_repeat_with_the_generator():
    one, two, three = (run(seed, **DEFAULT) for seed in (5, 5, 6))
    for array in one:
        assert array.shape == (48, 48) and array.dtype == np.uint8 and array.flags.c_contiguous
    np.testing.assert_array_equal(one, two)
    assert (one[0] != three[0]).any()


def test_the_result_depends_on_the_generators_state_alone():
    """A pooled generator, set to a state again, gives the same picture: so Grain uses it."""
    rng = np.random.Generator(np.random.Philox(7))
    state, options = rng.bit_generator.state, check_options(DEFAULT)
    first = augment(IMAGE, MASK, rng, options)
    rng.bit_generator.state = state
    np.testing.assert_array_equal(first, augment(IMAGE, MASK, rng, options))


@pytest.mark.parametrize("off", ["crop", "auto_augment", "erasing"])
def test_switching_one_part_off_leaves_the_flips_alone(off):
    left = np.zeros((48, 48), np.uint8)
    left[:, :24] = 1
    kept = {key: value for key, value in DEFAULT.items() if not key.startswith(off)}

    def flips(options):
        masks = [run(seed, mask=left, **options)[1] for seed in range(60)]
        return [bool(mask[:, 24:].sum() > mask[:, :24].sum()) for mask in masks]

    assert flips(DEFAULT) == flips(kept) and 10 < sum(flips(kept)) < 50


def test_flip_and_erasing_are_what_they_say():
    np.testing.assert_array_equal(run(hflip=1)[0], IMAGE[:, ::-1])
    np.testing.assert_array_equal(run(hflip=1)[1], MASK[:, ::-1])
    image, mask = run(erasing=1)
    assert (image == 0).any() and (image[image > 0] == IMAGE[image > 0]).all()
    np.testing.assert_array_equal(mask, MASK)


def test_image_and_mask_move_together():
    disc = np.zeros((96, 96), np.uint8)
    disc[30:60, 20:70] = 1
    for seed in range(20):
        image, mask = run(seed, image=disc * 200, mask=disc, crop_scale=(0.7, 1.0), hflip=0.5)
        assert np.mean((image > 100) == (mask > 0)) > 0.98
    assert set(np.unique(run(mask=disc, image=disc, **DEFAULT)[1])) <= {0, 1}


def test_a_missing_mask_stays_missing_and_changes_nothing():
    for seed in range(5):
        image, mask = run(seed, mask=None, **DEFAULT)
        assert mask is None
        np.testing.assert_array_equal(image, run(seed, **DEFAULT)[0])


def test_missing_options_are_off_and_a_crop_has_the_usual_ratios():
    assert OFF == {"crop_scale": (), "crop_ratio": (), "auto_augment": False, "hflip": 0.0, "erasing": 0.0}
    assert check_options({"crop_scale": [0.7, 1]})["crop_ratio"] == (3 / 4, 4 / 3)
    assert check_options(DEFAULT) == DEFAULT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vflip": 1}, "augment.vflip is unknown"),
        ({"hflip": 2}, "hflip=2 must lie between 0 and 1"),
        ({"erasing": -0.1}, "erasing=-0.1"),
        ({"crop_scale": (0.7, 1.2)}, "crop_scale=.*up to 1"),
        ({"crop_scale": (0.9, 0.7)}, "crop_scale="),
        ({"crop_scale": 0.7}, "crop_scale="),
        ({"crop_scale": (0.7, 1), "crop_ratio": (0, 1)}, "crop_ratio="),
        ({"crop_ratio": (0.5, 2)}, "crop_ratio does nothing"),
        ({"auto_augment": "imagenet"}, "must be True or False"),
    ],
)
def test_bad_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        check_options(options)
