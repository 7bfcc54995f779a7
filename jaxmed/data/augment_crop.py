"""Boxes drawn by area and shape: random resized crop and random erasing, with torchvision's algorithm.

The area is uniform in `scale` (parts of the image), the shape log-uniform in `ratio`; ten tries to fit, then a fallback.
"""

import math

import cv2
import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "h w"]
Box = tuple[int, int, int, int]  # top, left, height, width
TRIES = 10


def random_resized_crop(
    image: Image,
    mask: Image | None,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    size: tuple[int, int] | None = None,
) -> tuple[Image, Image | None]:
    """A random box of the image, resized to `size` (height, width; the image's own by default), and of its mask alike.

    Bilinear where a side grows; where both shrink, the mean over each pixel's area, which like torchvision's antialiased
    bilinear leaves no aliases. The mask takes the nearest pixel. `ratio` is width / height of the box in pixels: of an image
    that was stretched to a square it is not the shape on the original.
    """
    box, size = crop_box(rng, image.shape, scale, ratio), size or image.shape
    image = resized_crop(image, box, size)
    return image, mask if mask is None else _resize(_cut(mask, box), size, cv2.INTER_NEAREST_EXACT)


def crop_box(rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """A box within an image of `shape`; if none fits, the largest central one with a ratio inside `ratio`."""
    return _random_box(rng, shape, scale, ratio, shape) or _central_box(shape, ratio)


def resized_crop(image: Image, box: Box, size: tuple[int, int]) -> Image:
    """The box of an image at `size` (height, width)."""
    shrinks = size[0] <= box[2] and size[1] <= box[3]
    return _resize(_cut(image, box), size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def erase(
    image: Image,
    rng: np.random.Generator,
    probability: float,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Image:
    """With `probability` sets a random box to 0, the black of the bytes (random erasing, Zhong et al. 2020).

    The lesion mask is not touched by this: it says where the lesion is, also where it cannot be seen.
    """
    box = erase_box(rng, image.shape, probability, scale, ratio)
    if box is None:
        return image
    image = image.copy()
    _cut(image, box)[:] = 0
    return image


def erase_box(
    rng: np.random.Generator, shape: tuple[int, int], probability: float, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box | None:
    """A box lower and narrower than the image; None if it is not to be, or none fits. `ratio` is height / width here."""
    if rng.random() >= probability:
        return None
    return _random_box(rng, shape, scale, (1 / ratio[1], 1 / ratio[0]), (shape[0] - 1, shape[1] - 1))


def _random_box(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    largest: tuple[int, int],
) -> Box | None:
    for _ in range(TRIES):
        area = shape[0] * shape[1] * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= largest[0] and 0 < width <= largest[1]:
            top, left = rng.integers(shape[0] - height + 1), rng.integers(shape[1] - width + 1)
            return int(top), int(left), height, width
    return None


def _central_box(shape: tuple[int, int], ratio: tuple[float, float]) -> Box:
    height, width = shape
    if width / height < ratio[0]:
        height = round(width / ratio[0])
    elif width / height > ratio[1]:
        width = round(height * ratio[1])
    return (shape[0] - height) // 2, (shape[1] - width) // 2, height, width


def _cut(array: Image, box: Box) -> Image:
    top, left, height, width = box
    return array[top : top + height, left : left + width]


def _resize(array: Image, size: tuple[int, int], interpolation: int) -> Image:
    return cv2.resize(array, size[::-1], interpolation=interpolation)
