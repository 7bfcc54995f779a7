import math

import numpy as np
import pytest

from jaxmed.data.augment_crop import crop_box, erase, erase_box, random_resized_crop, resized_crop
from tests.torchvision_cpu import import_torchvision

SCALE, RATIO = (0.7, 1.0), (3 / 4, 4 / 3)
SHAPE = (100, 120)


class Fixed:
    """A generator whose uniform numbers in [0, 1) are given: area and ratio per try, at last top and left.

    `inverse` mirrors the ratios' numbers, for a reference that draws height / width where we draw width / height.
    """

    def __init__(self, numbers, inverse=False):
        self.numbers, self.inverse = iter(numbers), inverse

    def random(self):
        return 0.0

    def uniform(self, low, high):
        number = next(self.numbers)
        return low + (high - low) * (1 - number if self.inverse and low < 0 else number)  # logs of ratios start below 0

    def integers(self, count):
        return int(next(self.numbers) * count)


def boxes(count=3000, **how):
    rng = np.random.default_rng(0)
    return np.array([crop_box(rng, SHAPE, how.get("scale", SCALE), how.get("ratio", RATIO)) for _ in range(count)])


def test_crops_lie_inside_with_area_and_ratio_in_range():
    top, left, height, width = boxes().T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 100).all() and (left + width <= 120).all()
    area, ratio = height * width / 12000, width / height
    assert 0.69 < area.min() < 0.72 and area.max() > 0.98
    assert 0.74 < ratio.min() < 0.9 and 1.3 < ratio.max() < 1.36
    assert len(set(top)) > 15 and top.min() == 0


def test_ratios_are_log_uniform_where_every_box_fits():
    _, _, height, width = boxes(scale=(0.1, 0.2), ratio=(0.5, 2.0)).T
    logs = np.log(width / height)
    assert logs.mean() == pytest.approx(0.0, abs=0.03)
    assert logs.std() == pytest.approx(2 * math.log(2) / math.sqrt(12), rel=0.04)


@pytest.mark.parametrize(
    ("shape", "ratio", "box"),
    [
        ((100, 120), RATIO, (0, 0, 100, 120)),  # the whole image has a ratio in range
        ((100, 200), RATIO, (0, 33, 100, 133)),
        ((200, 60), RATIO, (60, 0, 80, 60)),
    ],
)
def test_after_ten_misses_the_largest_central_box_is_taken(shape, ratio, box):
    misses = [v for _ in range(10) for v in (1.0, 1.0 if shape[0] >= shape[1] else 0.0)]
    if shape == SHAPE:
        misses = [1.0, 0.0] * 10  # as high as 126
    assert crop_box(Fixed(misses), shape, (1.0, 1.0), ratio) == box


def test_a_crop_shows_its_box_and_the_mask_follows():
    y, x = np.mgrid[:64, :64]
    image, mask = (y + x).astype(np.uint8), (y >= 32).astype(np.uint8)
    rng = np.random.default_rng(4)
    top, left, height, width = crop_box(np.random.default_rng(4), image.shape, SCALE, RATIO)
    out, moved = random_resized_crop(image, mask, rng, SCALE, RATIO)
    row, column = ((np.arange(64) + 0.5) * size / 64 - 0.5 + start for size, start in ((height, top), (width, left)))
    expected = row.clip(top, top + height - 1)[:, None] + column.clip(left, left + width - 1)[None]
    assert np.abs(out - expected).max() < 1  # rounding, and OpenCV's fixed-point weights
    np.testing.assert_array_equal(moved, np.broadcast_to((np.rint(row - 1e-9) >= 32)[:, None], (64, 64)))
    assert random_resized_crop(image, None, rng, SCALE, RATIO, size=(20, 30))[0].shape == (20, 30)


def test_shrinking_takes_the_mean_of_an_area():
    stripes = np.tile(np.array([0, 200], np.uint8), (40, 20))
    assert (resized_crop(stripes, (0, 0, 40, 40), (10, 10)) == 100).all()


def test_erasing_blackens_one_box_of_the_promised_area_as_often_as_asked():
    image = np.full(SHAPE, 9, np.uint8)
    rng = np.random.default_rng(0)
    made = [erase(image, rng, 0.25) for _ in range(2000)]
    parts = np.array([(one == 0).mean() for one in made])
    assert (parts > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert 0.019 < parts[parts > 0].min() < 0.03 and 0.28 < parts.max() < 0.335
    for one in made[:40]:
        rows, columns = np.flatnonzero((one == 0).any(1)), np.flatnonzero((one == 0).any(0))
        assert (one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all() if len(rows) else True
    assert (image == 9).all() and erase(image, rng, 0.0) is image


def test_a_box_to_erase_is_always_smaller_than_the_image():
    rng = np.random.default_rng(1)
    found = [erase_box(rng, (20, 20), 1.0, (0.9, 1.0), (0.9, 1.1)) for _ in range(200)]
    assert all(box is None or (box[2] < 20 and box[3] < 20) for box in found) and any(box is None for box in found)
    heights = [erase_box(rng, (50, 50), 1.0, (0.1, 0.1), (2.0, 2.0))[2:] for _ in range(5)]
    assert set(heights) == {(22, 11)}  # twice as high as wide


@pytest.fixture
def torch_numbers(monkeypatch):
    """torch draws the given numbers instead of its own."""
    torch, _ = import_torchvision()

    def use(numbers):
        numbers = iter(numbers)
        monkeypatch.setattr(torch.Tensor, "uniform_", lambda t, a, b: t.fill_(float(a) + float(b - a) * next(numbers)))
        monkeypatch.setattr(torch, "randint", lambda low, high, size: torch.tensor(low + int(next(numbers) * (high - low))))
        return torch.zeros(1, *SHAPE)

    return use


@pytest.mark.parity
def test_boxes_equal_torchvisions_for_the_same_numbers(torch_numbers):
    _, transforms = import_torchvision()
    for seed in range(100):
        numbers = np.random.default_rng(seed).random(60)
        theirs = transforms.RandomResizedCrop.get_params(torch_numbers(numbers), SCALE, RATIO)
        assert crop_box(Fixed(numbers), SHAPE, SCALE, RATIO) == theirs
        theirs = transforms.RandomErasing.get_params(torch_numbers(numbers), (0.02, 0.33), (0.3, 3.3), [0.0])[:4]
        assert erase_box(Fixed(numbers, inverse=True), SHAPE, 1.0, (0.02, 0.33), (0.3, 3.3)) == theirs


@pytest.mark.parity
@pytest.mark.parametrize("size", [(112, 96), (64, 64)])
def test_enlarged_crops_equal_torchvisions(size):
    """One level: OpenCV rounds its weights to 1/2048."""
    torch, transforms = import_torchvision()
    noise, box = np.random.default_rng(0).integers(0, 256, (80, 90), np.uint8), (5, 7, 60, 61)
    theirs = transforms.functional.resized_crop(torch.from_numpy(noise)[None], *box, list(size), antialias=True)[0].numpy()
    assert np.abs(resized_crop(noise, box, size).astype(int) - theirs).max() <= 1


@pytest.mark.parity
def test_halved_crops_resemble_torchvisions():
    """Another kernel (a mean over 2 x 2 pixels, theirs is a triangle over 4 x 4): close on a smooth picture, not equal."""
    torch, transforms = import_torchvision()
    y, x = np.mgrid[:96, :96]
    waves, box = (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 8)).astype(np.uint8), (0, 0, 96, 96)
    theirs = transforms.functional.resized_crop(torch.from_numpy(waves)[None], *box, [48, 48], antialias=True)[0].numpy()
    assert np.abs(resized_crop(waves, box, (48, 48)).astype(int) - theirs).max() <= 3
