"""Whether the heat lies on the lesion."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float


def upsampled(heat: Float[np.ndarray, "h w"], size: tuple[int, int], smooth: bool = True) -> Float[np.ndarray, "h2 w2"]:
    """The map at the picture's size (height, width), cells spread evenly over the picture; bilinear, or with sharp edges."""
    way = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    return cv2.resize(np.asarray(heat, np.float32), (size[1], size[0]), interpolation=way)


@dataclass(frozen=True)
class Localisation:
    """share: of the heat, how much lies inside the mask (Wang et al. 2020, Score-CAM's energy-based pointing game).

    hit: the hottest pixel lies inside (Zhang et al. 2018, the pointing game, without tolerance). area: the mask's share of the
    picture, which is what heat that knows nothing of the lesion would reach.
    """

    share: float
    hit: bool
    area: float


def localise(heat: Float[np.ndarray, "h w"], mask: np.ndarray | None) -> Localisation | None:
    """For heat of any size and a mask [h2, w2] (inside > 0); None without a mask, with an empty one, and without heat."""
    if mask is None or not np.any(mask):
        return None
    inside, fine = np.asarray(mask) > 0, upsampled(heat, mask.shape)
    if not fine.max() > 0:
        return None
    hottest = np.unravel_index(np.argmax(fine), fine.shape)
    return Localisation(float(fine[inside].sum() / fine.sum()), bool(inside[hottest]), float(inside.mean()))
