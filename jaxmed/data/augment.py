"""Training augmentation of CSA-MoE-Net (section II-A): flips and a small rotation, one draw for image and mask.

It acts on the image and the mask at network size; the views are derived afterwards, so all three always agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxmed.errors import UserError

DEFAULT = {"hflip": 0.5, "vflip": 0.5, "degrees": 15.0}


@dataclass(frozen=True)
class Draw:
    """What one draw decided; `degrees` turns counter-clockwise as seen."""

    hflip: bool
    vflip: bool
    degrees: float


def check_options(options: Mapping | None) -> dict[str, float]:
    """`{"hflip": probability, "vflip": probability, "degrees": largest angle}`; what is missing is not done.

    Raises:
        UserError: an unknown key, a probability outside [0, 1] or an angle outside [0, 180].
    """
    given = dict(options or {})
    if unknown := sorted(set(given) - set(DEFAULT)):
        raise UserError(f"augment.{unknown[0]} is unknown; choose from {', '.join(DEFAULT)}")
    full = {key: float(given.get(key, 0.0)) for key in DEFAULT}
    for key, value in full.items():
        highest = 180.0 if key == "degrees" else 1.0
        if not 0.0 <= value <= highest:
            raise UserError(f"augment.{key}={value:g} must lie between 0 and {highest:g}")
    return full


def draw(rng: np.random.Generator, options: Mapping[str, float]) -> Draw:
    """Always takes three numbers from `rng`, so that switching one option off does not change the others' draws."""
    horizontal, vertical, angle = rng.random(3)
    return Draw(
        hflip=bool(horizontal < options["hflip"]),
        vflip=bool(vertical < options["vflip"]),
        degrees=float((2.0 * angle - 1.0) * options["degrees"]),
    )


def apply(
    image: UInt8[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h w"], what: Draw
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Flips, then rotates about the picture's centre: image bilinear, mask nearest, zeros from outside."""
    image, mask = (flipped(array, what) for array in (image, mask))
    if what.degrees == 0.0:
        return image, mask
    return rotated(image, what.degrees, cv2.INTER_LINEAR), rotated(mask, what.degrees, cv2.INTER_NEAREST)


def augment(
    image: UInt8[np.ndarray, "h w"],
    mask: UInt8[np.ndarray, "h w"],
    rng: np.random.Generator,
    options: Mapping[str, float],
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """One draw, applied to both. `options` as `check_options` returns them."""
    return apply(image, mask, draw(rng, options))


def flipped(array: UInt8[np.ndarray, "h w"], what: Draw) -> UInt8[np.ndarray, "h w"]:
    """The two flips alone."""
    array = array[:, ::-1] if what.hflip else array
    array = array[::-1] if what.vflip else array
    return np.ascontiguousarray(array)


def rotated(
    array: UInt8[np.ndarray, "h w"], degrees: float, interpolation: int, border: int = cv2.BORDER_CONSTANT, zoom: float = 1.0
) -> UInt8[np.ndarray, "h w"]:
    """Turned counter-clockwise about the picture's centre and enlarged by `zoom` (reduced below 1).

    `border` says what comes in from outside (zeros).
    """
    height, width = array.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
    return cv2.warpAffine(array, turn, (width, height), flags=interpolation, borderMode=border, borderValue=0)
