"""The three views of a lesion (CSA-MoE-Net, section II-A): the whole image, its core, its boundary.

core     = (mask eroded 5 times by a 3 x 3 square) x image
boundary = (mask dilated 5 times by a 3 x 3 square, minus the mask) x image

Stated rules where these would come out black:
    * tiny lesion, less than 1 % of which survives: the core takes the largest number of erosions that leaves 1 %
      of the lesion and at least one pixel;
    * empty mask (a normal case, or a lesion lost by resizing): core and boundary are the whole image;
    * lesion that fills the picture: nothing is left to dilate into, so the boundary is the whole image.
`view_report` counts and names the cases each rule was used for.

At the picture's edge OpenCV's default border is kept: outside pixels neither erode nor dilate, so a lesion cut by the
edge keeps its core up to the edge.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

ITERATIONS = 5
SMALLEST_CORE = 0.01  # of the lesion's pixels
INPUTS = ("image", "core", "boundary", "mask")
NEED_MASK = ("core", "boundary", "mask")
FLAGS = {
    "small_core": f"lesions too small for {ITERATIONS} erosions: their core view uses fewer",
    "empty_mask": "empty masks: their core and boundary views are the whole image",
    "no_boundary": "lesions that fill the picture: their boundary view is the whole image",
}
_SQUARE = np.ones((3, 3), np.uint8)


def core_mask(mask: UInt8[np.ndarray, "h w"]) -> tuple[UInt8[np.ndarray, "h w"], int]:
    """The eroded mask and the number of erosions that the tiny-lesion rule allowed (5 unless the lesion is tiny)."""
    least = max(1.0, SMALLEST_CORE * np.count_nonzero(mask))
    for count in range(ITERATIONS, 0, -1):
        core = cv2.erode(mask, _SQUARE, iterations=count)
        if np.count_nonzero(core) >= least:
            return core, count
    return mask, 0


def boundary_mask(mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The ring of 5 pixels around the lesion."""
    return cv2.dilate(mask, _SQUARE, iterations=ITERATIONS) - mask


def derive_views(
    image: UInt8[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h w"] | None, inputs: Sequence[str]
) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """One array per name in `inputs` ("image", "core", "boundary", "mask"), by the rules at the top of this file.

    Args:
        mask: 0 outside, 1 inside the lesion, of the image's size. May be None if no input needs it.
    """
    make = {
        "image": lambda: image,
        "mask": lambda: mask,
        "core": lambda: _visible(core_mask(mask)[0], image),
        "boundary": lambda: _visible(boundary_mask(mask), image),
    }
    return {name: make[name]() for name in inputs}


def view_flags(mask: UInt8[np.ndarray, "h w"]) -> tuple[str, ...]:
    """Which of the rules (keys of `FLAGS`) this mask needs."""
    if not mask.any():
        return ("empty_mask",)
    small = core_mask(mask)[1] < ITERATIONS
    filled = not boundary_mask(mask).any()
    return ("small_core",) * small + ("no_boundary",) * filled


def view_report(cache, indices: Sequence[int], case_ids: Sequence[str] | None = None) -> dict[str, list]:
    """Counts which cases of a cache need a rule, before augmentation.

    Args:
        cache: anything with `load(index) -> (image, mask)`.
        indices: rows to look at.
        case_ids: name of every row of the source; without it rows are reported by number.

    Returns:
        {"small_core": [names], "empty_mask": [names], "no_boundary": [names]}.
    """
    found: dict[str, list] = {flag: [] for flag in FLAGS}
    for index in indices:
        for flag in view_flags(cache.load(int(index))[1]):
            found[flag].append(int(index) if case_ids is None else case_ids[int(index)])
    return found


def view_warnings(report: dict[str, list], total: int, limit: int = 10) -> list[str]:
    """The report as sentences: one per rule that was used."""
    return [
        f"{len(names)} of {total} {FLAGS[flag]} ({shorten(names, limit)})" for flag, names in report.items() if names
    ]


def shorten(names: Sequence, limit: int) -> str:
    """ "a, b, c and 7 more"."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _visible(part: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The image inside `part`; the whole image where there is no part (never a black view)."""
    return image * part if part.any() else image
