"""Training augmentation of HSQformer (specification, section 9): crop, AutoAugment, flip, erasing, in this order.

It acts on gray bytes at network size, before normalisation. The paper erases with probability 0.25, its code with 0.1; the
paper's number is the default. Mixup and cutmix follow on the whole batch, in the training step: `jaxmed.train.mix`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from jaxmed.data.augment_auto import auto_augment
from jaxmed.data.augment_crop import erase, random_resized_crop
from jaxmed.errors import UserError

RATIO = (3 / 4, 4 / 3)
# range of the crop's area and of its width / height; whether to use AutoAugment; probabilities of a flip and of erasing
DEFAULT = {"crop_scale": (0.7, 1.0), "crop_ratio": RATIO, "auto_augment": True, "hflip": 0.5, "erasing": 0.25}
Options = Mapping[str, object]
Image = UInt8[np.ndarray, "h w"]


def check_options(options: Options | None) -> dict[str, object]:
    """The options in full; what is missing is not done (`crop_scale=()` means no crop too).

    Raises:
        UserError: an unknown key, a value outside its range, or `crop_ratio` without `crop_scale`.
    """
    given = dict(options or {})
    if unknown := sorted(set(given) - set(DEFAULT)):
        raise UserError(f"augment.{unknown[0]} is unknown; choose from {', '.join(DEFAULT)}")
    scale, ratio = given.get("crop_scale") or (), given.get("crop_ratio") or ()
    if ratio and not scale:
        raise UserError("augment.crop_ratio does nothing without augment.crop_scale, such as (0.7, 1.0)")
    full = {
        "crop_scale": _range("crop_scale", scale, 1.0) if scale else (),
        "crop_ratio": _range("crop_ratio", ratio or RATIO, math.inf) if scale else (),
        "auto_augment": given.get("auto_augment", False),
    }
    if not isinstance(full["auto_augment"], bool):
        raise UserError(f"augment.auto_augment={full['auto_augment']!r} must be True or False")
    return full | {key: _probability(key, given.get(key, 0.0)) for key in ("hflip", "erasing")}


def augment(image: Image, mask: Image | None, rng: np.random.Generator, options: Options) -> tuple[Image, Image | None]:
    """Image and mask (or None) after one draw; `options` as `check_options` returns them.

    The mask moves with crop, geometry and flip, and is not erased. Each part draws from a generator of its own, so that
    switching one off leaves the others' draws alone.
    """
    # not rng.spawn: its children depend on how often a pooled generator has spawned before, not on its state
    crop, auto, flip, erasing = (np.random.default_rng(int(seed)) for seed in rng.integers(2**63, size=4))
    if options["crop_scale"]:
        image, mask = random_resized_crop(image, mask, crop, options["crop_scale"], options["crop_ratio"])
    if options["auto_augment"]:
        image, mask = auto_augment(image, mask, auto)
    if flip.random() < options["hflip"]:
        image, mask = (array if array is None else np.ascontiguousarray(array[:, ::-1]) for array in (image, mask))
    return erase(image, erasing, options["erasing"]), mask


def _probability(key: str, value: float) -> float:
    if not 0.0 <= float(value) <= 1.0:
        raise UserError(f"augment.{key}={value:g} must lie between 0 and 1")
    return float(value)


def _range(key: str, value: Sequence[float], highest: float) -> tuple[float, float]:
    ends = tuple(np.atleast_1d(np.asarray(value, np.float64)).tolist())
    if len(ends) != 2 or not 0.0 < ends[0] <= ends[1] <= highest or not math.isfinite(ends[1]):
        limit = "" if math.isinf(highest) else f" up to {highest:g}"
        raise UserError(f"augment.{key}={ends} must be (lowest, highest), positive numbers{limit}")
    return ends
