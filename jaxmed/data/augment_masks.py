"""Training augmentation of the decoder interaction paper (specification, section 6): flips, a rotation, elastic deformation.

It acts on the image (bilinear) and its mask (nearest) at network size, both moved by the same draw; what comes in from
outside is the picture mirrored at its border pixels. The paper names elastic deformation, its code has none: `elastic` 0
is the code's. Neither has `zoom` and `gamma`, which are off unless asked for: depth and display curve differ between scanners.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from jaxmed.data.augment import Draw, flipped, rotated
from jaxmed.errors import UserError

# probabilities of the flips, of a rotation and of a deformation; largest angle; ranges of the deformation's strength and
# smoothness in pixels of the network's picture; zoom and gamma z: a factor and an exponent from 1 / (1 + z) to 1 + z
DEFAULT = {
    "hflip": 0.5, "vflip": 0.5, "rotate": 0.7, "degrees": 15.0, "elastic": 0.3, "alpha": (34.0, 50.0), "sigma": (5.0, 6.0),
    "zoom": 0.0, "gamma": 0.0,
}  # fmt: skip
PROBABILITIES = ("hflip", "vflip", "rotate", "elastic")
HIGHEST = {"degrees": 180.0, "zoom": 1.0, "gamma": 1.0}
BORDER = cv2.BORDER_REFLECT_101
Options = Mapping[str, float | tuple[float, float]]
Image = UInt8[np.ndarray, "h w"]


def check_options(options: Mapping | None) -> dict[str, float | tuple[float, float]]:
    """The options in full: probabilities that are missing are 0, sizes that are missing are those of `DEFAULT`.

    Raises:
        UserError: an unknown key or a value outside its range.
    """
    given = dict(options or {})
    if unknown := sorted(set(given) - set(DEFAULT)):
        raise UserError(f"augment.{unknown[0]} is unknown; choose from {', '.join(DEFAULT)}")
    full = {key: float(given.get(key, 0.0)) for key in PROBABILITIES}
    full |= {key: float(given.get(key, DEFAULT[key])) for key in HIGHEST}
    for key, value in full.items():
        highest = HIGHEST.get(key, 1.0)
        if not 0.0 <= value <= highest:
            raise UserError(f"augment.{key}={value:g} must lie between 0 and {highest:g}")
    return full | {key: _range(key, given.get(key, DEFAULT[key])) for key in ("alpha", "sigma")}


def augment(image: Image, mask: Image, rng: np.random.Generator, options: Options) -> tuple[Image, Image]:
    """Image and mask after one draw; `options` as `check_options` returns them.

    Always takes the same numbers from `rng`, so that switching one part off leaves the others' draws alone.
    """
    horizontal, vertical, turn, angle, bend = rng.random(5)
    bending = np.random.default_rng(int(rng.integers(2**63)))
    factor, exponent = ((1.0 + options[key]) ** (2.0 * rng.random() - 1.0) for key in ("zoom", "gamma"))
    what = Draw(horizontal < options["hflip"], vertical < options["vflip"], (2.0 * angle - 1.0) * options["degrees"])
    image, mask = flipped(image, what), flipped(mask, what)
    if turn < options["rotate"] and what.degrees:
        image = rotated(image, what.degrees, cv2.INTER_LINEAR, BORDER)
        mask = rotated(mask, what.degrees, cv2.INTER_NEAREST, BORDER)
    if bend < options["elastic"]:
        places = bent_grid(image.shape, bending, options["alpha"], options["sigma"])
        image, mask = moved(image, places, cv2.INTER_LINEAR), moved(mask, places, cv2.INTER_NEAREST)
    if factor != 1.0:
        image = rotated(image, 0.0, cv2.INTER_LINEAR, BORDER, factor)
        mask = rotated(mask, 0.0, cv2.INTER_NEAREST, BORDER, factor)
    return curved(image, exponent), mask


def bent_grid(
    shape: tuple[int, int], rng: np.random.Generator, alpha: tuple[float, float], sigma: tuple[float, float]
) -> Float32[np.ndarray, "2 h w"]:
    """Where each pixel comes from (x, y): its place plus uniform noise in [-1, 1] smoothed by sigma, times alpha, one of each
    drawn from its range (Simard et al. 2003)."""
    strength, smoothness = rng.uniform(*alpha), rng.uniform(*sigma)
    noise = rng.uniform(-1.0, 1.0, (2, *shape)).astype(np.float32)
    away = [strength * cv2.GaussianBlur(field, (0, 0), smoothness, borderType=BORDER) for field in noise]
    rows, columns = np.indices(shape, np.float32)
    return np.stack([columns + away[0], rows + away[1]])


def moved(array: Image, places: Float32[np.ndarray, "2 h w"], interpolation: int) -> Image:
    """The picture with the pixel from `places` (x, y) at each pixel."""
    return cv2.remap(array, places[0], places[1], interpolation, borderMode=BORDER)


def curved(image: Image, exponent: float) -> Image:
    """Gray levels g as 255 (g / 255) ** exponent: brighter below 1, darker above; black and white stay."""
    table = np.rint(255.0 * (np.arange(256) / 255.0) ** exponent).astype(np.uint8)
    return table[image]


def _range(key: str, value: object) -> tuple[float, float]:
    ends = tuple(float(x) for x in np.atleast_1d(np.asarray(value, np.float64)))
    if len(ends) != 2 or not 0.0 < ends[0] <= ends[1] < np.inf:
        raise UserError(f"augment.{key}={value} must be two rising numbers above 0, such as {DEFAULT[key]}")
    return ends
