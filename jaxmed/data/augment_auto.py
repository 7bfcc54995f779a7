"""AutoAugment's ImageNet policy on gray images (Cubuk et al. 2019, arXiv 1805.09501, appendix), as torchvision applies it.

Magnitudes are torchvision's: ten bins per operation; a sign is drawn for those that have one. Geometry is bilinear with zeros
from outside. `Color` blends a picture with its gray version, so on gray images it is the identity (on three equal channels
torchvision differs from that by its rounding of the gray value). A mask moves along with the geometry, nearest pixel.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Image = UInt8[np.ndarray, "h w"]
Table = UInt8[np.ndarray, "256"]

BINS = 10
# 25 sub-policies of two operations: (name, probability, bin of the magnitude)
POLICY = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
)
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")


@dataclass(frozen=True)
class Draw:
    """What one draw decided: a row of POLICY, and for each of its two operations a number in [0, 1) and a sign."""

    policy: int
    chance: tuple[float, float]
    negative: tuple[bool, bool]


def draw(rng: np.random.Generator) -> Draw:
    """Always takes the same count of numbers from `rng`."""
    policy, chance, sign = rng.integers(len(POLICY)), rng.random(2), rng.integers(2, size=2)
    return Draw(int(policy), tuple(chance.tolist()), tuple((sign == 0).tolist()))


def apply(image: Image, mask: Image | None, what: Draw) -> tuple[Image, Image | None]:
    """The drawn sub-policy on an image and, where there is one, its mask."""
    for (name, probability, level), chance, negative in zip(POLICY[what.policy], what.chance, what.negative, strict=True):
        if chance <= probability:
            value = magnitude(name, level, image.shape)
            image, mask = operate(image, mask, name, -value if negative and name in SIGNED else value)
    return image, mask


def auto_augment(image: Image, mask: Image | None, rng: np.random.Generator) -> tuple[Image, Image | None]:
    """One draw, applied to image and mask."""
    return apply(image, mask, draw(rng))


def magnitude(name: str, level: int | None, shape: tuple[int, int]) -> float:
    """The value of bin `level` (0 to 9) on an image of `shape` = (height, width); 0 for operations without one.

    Slope for shears, pixels for translations (whole ones, at most 150 of 331 of the side), degrees for rotations, change of
    the factor 1 for brightness, color, contrast and sharpness, bits kept for posterize, threshold for solarize.
    """
    if level is None:
        return 0.0
    part = level / (BINS - 1)
    if name == "Posterize":
        return float(8 - round(4 * part))
    if name == "Solarize":
        return 255.0 * (BINS - 1 - level) / (BINS - 1)  # in this order whole thresholds are exact
    largest = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331 * shape[1], "TranslateY": 150 / 331 * shape[0]}
    return part * (largest | {"Rotate": 30.0}).get(name, 0.9)


def operate(image: Image, mask: Image | None, name: str, value: float = 0.0) -> tuple[Image, Image | None]:
    """One operation by its name in the paper; `value` as `magnitude` explains it, with its sign."""
    if name in _GEOMETRY:
        source = _GEOMETRY[name](value, image.shape)
        image = _warp(image, source, cv2.INTER_LINEAR)
        return image, mask if mask is None else _warp(mask, source, cv2.INTER_NEAREST)
    if name in _TABLES:
        return cv2.LUT(image, _TABLES[name](image, value)), mask
    return {"Color": lambda same, _: same, "Sharpness": sharpness}[name](image, value), mask


def sharpness(image: Image, value: float) -> Image:
    """Blends with a 3 x 3 smoothed version (weights 1, centre 5, over 13); the outermost pixels stay as they are."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5.0
    smooth = image.astype(np.float32)
    smooth[1:-1, 1:-1] = np.rint(cv2.filter2D(image, cv2.CV_32F, kernel / 13.0))[1:-1, 1:-1]
    return _blend(image, smooth, value)


_LEVELS = np.arange(256, dtype=np.uint8)


def _blend(image: np.ndarray, other: np.ndarray | float, value: float) -> np.ndarray:
    """(1 + value) image - value other, cut to bytes: fractions are dropped, as torchvision's conversion does."""
    mixed = np.float32(1 + value) * image.astype(np.float32) + np.float32(-value) * np.asarray(other, np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _contrast(image: Image, value: float) -> Table:
    return _blend(_LEVELS, image.mean(dtype=np.float64), value)


def _posterize(image: Image, bits: float) -> Table:
    return _LEVELS & np.uint8(256 - 2 ** (8 - int(bits)))


def _solarize(image: Image, threshold: float) -> Table:
    return np.where(_LEVELS >= threshold, 255 - _LEVELS, _LEVELS)


def _autocontrast(image: Image, _: float) -> Table:
    """Stretches the image's range to 0..255; an image of one level stays. torch divides by taking the reciprocal first."""
    low, high = np.float32(image.min()), np.float32(image.max())
    if low == high:
        return _LEVELS
    return np.clip((_LEVELS - low) * (1 / (high - low) * 255), 0, 255).astype(np.uint8)


def _equalize(image: Image, _: float) -> Table:
    """Equal counts per level (the integer arithmetic of PIL and torchvision); the highest level does not count for the step."""
    count = np.bincount(image.ravel(), minlength=256)
    step = (image.size - count[image.max()]) // 255
    if step == 0:
        return _LEVELS
    below = np.concatenate([[0], np.cumsum(count)[:-1] + step // 2])
    return np.minimum(below // step, 255).astype(np.uint8)


_TABLES: dict[str, Callable[[Image, float], Table]] = {
    "Brightness": lambda image, value: _blend(_LEVELS, 0.0, value),
    "Contrast": _contrast,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": lambda image, _: 255 - _LEVELS,
}


def _matrix(xx: float, xy: float, x: float, yx: float, yy: float, y: float) -> Float[np.ndarray, "2 3"]:
    return np.array([[xx, xy, x], [yx, yy, y]], np.float64)


def _turn(degrees: float, shape: tuple[int, int]) -> Float[np.ndarray, "2 3"]:
    """Counter-clockwise as seen, about the picture's centre."""
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _matrix(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


# Where a pixel (x, y) of the result comes from. Shears leave the picture's upper (left) edge, half a pixel before 0, in place.
_GEOMETRY: dict[str, Callable[[float, tuple[int, int]], np.ndarray]] = {
    "ShearX": lambda slope, _: _matrix(1, slope, slope / 2, 0, 1, 0),
    "ShearY": lambda slope, _: _matrix(1, 0, 0, slope, 1, slope / 2),
    "TranslateX": lambda pixels, _: _matrix(1, 0, -int(pixels), 0, 1, 0),
    "TranslateY": lambda pixels, _: _matrix(1, 0, 0, 0, 1, -int(pixels)),
    "Rotate": _turn,
}


def _warp(array: Image, source: Float[np.ndarray, "2 3"], interpolation: int) -> Image:
    size, flags = array.shape[::-1], interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(array, source, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
