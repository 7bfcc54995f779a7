"""Training augmentation of the four-view hybrid (paper 003, section 3.2): a small affine change per view, a flip per study.

The views of a study are oriented alike (chest wall on the left), so a flip of single views would undo that: all four flip
together. `flip_views=True` flips each on its own, as a transform applied image by image does.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt

from jaxmed.errors import UserError

# largest angle; largest shift and change of size (parts of the side); probability of a flip; whether views flip one by one
DEFAULT = {"degrees": 10.0, "translate": 0.05, "scale": 0.05, "hflip": 0.5, "flip_views": False}
_HIGHEST = {"degrees": 180.0, "translate": 0.5, "scale": 0.5, "hflip": 1.0}


def check_options(options: Mapping | None) -> dict[str, float | bool]:
    """The options in full; what is missing is not done.

    Raises:
        UserError: an unknown key, or a value outside its range.
    """
    given = dict(options or {})
    if unknown := sorted(set(given) - set(DEFAULT)):
        raise UserError(f"augment.{unknown[0]} is unknown for views; choose from {', '.join(DEFAULT)}")
    full = {key: float(given.get(key, 0.0)) for key in _HIGHEST}
    for key, value in full.items():
        if not 0.0 <= value <= _HIGHEST[key]:
            raise UserError(f"augment.{key}={value:g} must lie between 0 and {_HIGHEST[key]:g}")
    return full | {"flip_views": bool(given.get("flip_views", False))}


def augment_views(
    views: UInt[np.ndarray, "v h w"], rng: np.random.Generator, options: Mapping[str, float | bool]
) -> UInt[np.ndarray, "v h w"]:
    """One draw for a study; `options` as `check_options` returns them. Missing views (zeros) stay zeros.

    Always takes the same numbers from `rng`, so that switching one option off does not change the others' draws.
    """
    flips, changes = rng.random(len(views)), rng.uniform(-1.0, 1.0, (len(views), 4))
    flip = (flips if options["flip_views"] else flips[:1].repeat(len(views))) < options["hflip"]
    views = np.stack([view[:, ::-1] if turned else view for view, turned in zip(views, flip, strict=True)])
    if not (options["degrees"] or options["translate"] or options["scale"]):
        return views
    return np.stack([_warp(view, change, options) if view.any() else view for view, change in zip(views, changes, strict=True)])


def _warp(view: UInt[np.ndarray, "h w"], change: Float[np.ndarray, "4"], options: Mapping) -> UInt[np.ndarray, "h w"]:
    """Turns and scales about the centre, then shifts: bilinear, zeros from outside. `change`: angle, size, right, down."""
    height, width = view.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    affine = cv2.getRotationMatrix2D(centre, change[0] * options["degrees"], 1.0 + change[1] * options["scale"])
    affine[:, 2] += change[2:] * options["translate"] * (width, height)
    return cv2.warpAffine(view, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
