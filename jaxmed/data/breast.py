"""Mammograms made alike: chest wall on the left, perhaps cropped to the breast, one size."""

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

EVIDENCE = 1.25  # ratio of the two halves' breast areas above which the pixels say on which side the chest wall is
MARGIN = 0.01  # of the picture's longer side, kept around a crop
THIN = 0.03  # of the picture's longer side
_SMALL = 256  # the outline is found on a picture of about this size


def orient(pixels: Shaped[np.ndarray, "h w"], laterality: str) -> Shaped[np.ndarray, "h w"]:
    """A picture with the chest wall on its left, where a left breast has it: right breasts are mirrored.

    The pixels decide where they are clear (a mirrored file, a wrong side in the header), else the laterality.
    """
    side = chest_wall(pixels) or ("right" if laterality == "R" else "left")
    return np.ascontiguousarray(pixels[:, ::-1]) if side == "right" else pixels


def chest_wall(pixels: Shaped[np.ndarray, "h w"]) -> str:
    """ "left" or "right", where the breast fills more of that half; "" if the halves are too much alike to tell."""
    mask = breast_mask(_shrink(pixels))
    half = mask.shape[1] // 2
    left, right = int(mask[:, :half].sum()), int(mask[:, -half:].sum())
    if max(left, right) <= EVIDENCE * min(left, right):
        return ""
    return "left" if left > right else "right"


def breast_mask(pixels: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """1 inside the breast: the largest connected component above a threshold.

    The threshold is Otsu's on the square root of the gray levels and then halved: fatty tissue near the skin is dark, and
    background is nearly black. What is thinner than THIN (a film's bright border) is cut off first; labels and markers are
    smaller components and drop out.
    """
    gray = np.sqrt(pixels.astype(np.float32))
    low, high = float(gray.min()), float(gray.max())
    gray = np.round((gray - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = (gray > max(threshold / 2, 1)).astype(np.uint8)
    width = max(3, round(THIN * max(gray.shape)))
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    bright = opened if opened.any() else bright
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if count < 2:
        return np.ones_like(bright)
    return (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)


def crop_breast(pixels: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "h2 w2"]:
    """The bounding box of the breast with a small margin."""
    small = _shrink(pixels)
    rows, columns = np.nonzero(breast_mask(small))
    scale = np.array(pixels.shape) / small.shape
    pad = MARGIN * max(pixels.shape)
    top, left = np.floor(np.array([rows.min(), columns.min()]) * scale - pad).astype(int).clip(0)
    bottom, right = np.ceil(np.array([rows.max() + 1, columns.max() + 1]) * scale + pad).astype(int)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def pad_to_ratio(pixels: Shaped[np.ndarray, "h w"], size: tuple[int, int]) -> Shaped[np.ndarray, "h2 w2"]:
    """Black added until height : width is that of `size`, to the pixel.

    A picture too tall gets it on its right, so that the chest wall stays at the left edge; one too wide above and below.
    """
    height, width = pixels.shape
    taller = max(height, round(width * size[0] / size[1]))
    wider = max(width, round(height * size[1] / size[0]))
    above = (taller - height) // 2
    return np.pad(pixels, ((above, taller - height - above), (0, wider - width)))


def resize(pixels: Shaped[np.ndarray, "h w"], size: int | tuple[int, int]) -> Shaped[np.ndarray, "h2 w2"]:
    """To size x size, or to (height, width); the aspect ratio is not kept, as in the four-view paper.

    Areas are averaged when shrinking (calcifications and edges do not alias), bilinear when enlarging.
    """
    height, width = (size, size) if isinstance(size, int) else size
    smaller = height <= pixels.shape[0] and width <= pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def to_uint8(pixels: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """uint16 gray levels 0..65535 as 0..255, rounded; uint8 stays as it is."""
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / np.float32(257)).astype(np.uint8)


def _shrink(pixels: np.ndarray) -> np.ndarray:
    scale = min(1.0, _SMALL / max(pixels.shape))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
