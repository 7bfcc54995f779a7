"""Image files -> gray arrays, with a rule for every kind of file and no silent default.

| file | image | mask |
|---|---|---|
| 8-bit gray | as it is | any nonzero pixel is lesion |
| 8-bit colour | luma, only if the channels differ by at most `COLOUR_TOLERANCE` on average (a gray picture saved as RGB, small coloured marks included) | any nonzero channel |
| alpha channel | dropped if opaque everywhere, else an error | dropped if opaque everywhere, else an error |
| 1-bit | 0 and 255 | as it is |
| 16-bit, float | an error that says how to convert | any nonzero pixel is lesion |
| broken, empty, not an image | an error | an error |
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxmed.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
COLOUR_TOLERANCE = 8.0  # gray levels, mean over the picture of max - min over the three channels


def decode_gray(content: bytes | str | Path, name: str = "") -> UInt8[np.ndarray, "h w"]:
    """A gray picture from a path or from a file's bytes.

    Args:
        content: a path, or the whole file (PNG, JPEG, BMP, TIFF).
        name: how error messages call it; the path by default.

    Raises:
        UserError: unreadable, 16-bit, really transparent or really coloured; the message names the file and the fix.
    """
    pixels, name = _decode(content, name)
    if pixels.dtype != np.uint8:
        raise UserError(
            f"{name}: {pixels.dtype} pixels, but images must be 8-bit; the display window of a {pixels.dtype} image is "
            "yours to choose: convert it (for example `cv2.convertScaleAbs(image, alpha=255 / image.max())`) and save as PNG"
        )
    if pixels.ndim == 2:
        return pixels
    pixels = _drop_alpha(pixels, name)
    spread = float((pixels.max(2).astype(np.int16) - pixels.min(2)).mean())
    if spread > COLOUR_TOLERANCE:
        raise UserError(
            f"{name}: a colour picture (channels differ by {spread:.0f} gray levels on average, at most {COLOUR_TOLERANCE:.0f} "
            "is taken as gray); colour Doppler or elastography frames do not fit, else convert the file to gray"
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def decode_mask(content: bytes | str | Path, name: str = "") -> UInt8[np.ndarray, "h w"]:
    """A lesion mask from a path or from a file's bytes: 1 wherever any colour channel is nonzero, else 0.

    Raises:
        UserError: unreadable, or with an alpha channel that is not opaque; the message names the file.
    """
    pixels, name = _decode(content, name)
    if pixels.ndim == 3:
        pixels = _drop_alpha(pixels, name).max(2)
    return (pixels != 0).astype(np.uint8)


def check_same_size(image: np.ndarray, mask: np.ndarray, image_name: str, mask_name: str) -> None:
    """Raises a UserError that names both files and sizes unless the mask fits the image."""
    if image.shape != mask.shape:
        raise UserError(
            f"{mask_name}: the mask is {_size(mask)} but its image {image_name} is {_size(image)} (width x height); "
            "they must match pixel by pixel: export the mask again at the image's size"
        )


def unite(masks: list[np.ndarray], names: list[str]) -> UInt8[np.ndarray, "h w"]:
    """The union of several masks of one image; a UserError if their sizes differ."""
    union = masks[0]
    for mask, name in zip(masks[1:], names[1:], strict=True):
        check_same_size(union, mask, names[0], name)
        union = union | mask
    return union


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def _decode(content: bytes | str | Path, name: str) -> tuple[np.ndarray, str]:
    if not isinstance(content, bytes):
        name = name or str(content)
        content = read_file(content, name)
    name = name or "image"
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:
        pixels = None
    if pixels is None or not pixels.size:
        state = "empty file" if not content else "not a readable PNG, JPEG, BMP or TIFF (corrupt or truncated?)"
        raise UserError(f"{name}: {state}; replace the file or take its row out")
    return pixels, name


def read_file(path: str | Path, name: str = "") -> bytes:
    """The file's bytes, or a UserError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{name or path}: cannot be read ({error.strerror}); check the path and permissions") from error


def _drop_alpha(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] != 4:
        raise UserError(f"{name}: {pixels.shape[2]} channels; save it as a gray, RGB or opaque RGBA image")
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    if (pixels[..., 3] != opaque).any():
        raise UserError(f"{name}: has transparent pixels, whose gray value is undefined; flatten it onto black and save without alpha")
    return pixels[..., :3]
