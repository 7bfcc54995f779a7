"""Image files -> gray arrays, with a rule for every kind of file and no silent default.

| file              | as an image                                      | as a mask (1 = lesion)              |
|-------------------|--------------------------------------------------|-------------------------------------|
| 8-bit gray, 1-bit | as it is                                         | any nonzero pixel                   |
| 8-bit colour      | luma, if it is a gray picture saved in colour    | any nonzero channel                 |
| alpha channel     | dropped if opaque everywhere, else an error      | the same                            |
| 16-bit, float     | an error that says how to convert                | any nonzero pixel                   |
| JPEG              | as above                                         | pixels above 127: JPEG blurs edges  |
| broken, empty     | an error                                         | an error                            |

"A gray picture saved in colour": the three channels differ by at most COLOUR_TOLERANCE on average, which lets small
coloured marks pass and stops colour Doppler and elastography.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxmed.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_END = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # some OpenCV versions fill a truncated picture with gray and say nothing
COLOUR_TOLERANCE = 8.0  # gray levels, mean over the picture of max - min over the three channels


def decode_gray(content: bytes | str | Path, name: str = "", deep: bool = False) -> UInt8[np.ndarray, "h w"]:
    """A gray picture from a path or from a file's bytes.

    Args:
        content: a path, or the whole file (PNG, JPEG, BMP, TIFF).
        name: how error messages call it; the path by default.
        deep: the caller scales gray levels by a stated rule: a 16-bit gray picture comes as uint16, not as an error.

    Raises:
        UserError: unreadable, 16-bit, really transparent or really coloured; the message names the file and the fix.
    """
    pixels, name, _ = _decode(content, name)
    if deep and pixels.dtype == np.uint16 and pixels.ndim == 2:
        return pixels
    if pixels.dtype != np.uint8:
        raise UserError(
            f"{name}: {pixels.dtype} pixels, but images must be 8-bit: which gray levels to show is your choice. "
            "Convert it, for example with `cv2.convertScaleAbs(image, alpha=255 / image.max())`, and save an 8-bit PNG"
        )
    if pixels.ndim == 2:
        return pixels
    pixels = _drop_alpha(pixels, name)
    spread = float((pixels.max(2).astype(np.int16) - pixels.min(2)).mean())
    if spread > COLOUR_TOLERANCE:
        raise UserError(
            f"{name}: a colour picture (its channels differ by {spread:.0f} gray levels on average); leave out colour "
            "Doppler and elastography frames, and convert other pictures to gray"
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def decode_mask(content: bytes | str | Path, name: str = "") -> UInt8[np.ndarray, "h w"]:
    """A lesion mask from a path or from a file's bytes: uint8, 1 inside the lesion and 0 outside.

    Raises:
        UserError: unreadable, really transparent, or a JPEG without bright pixels; the message names the file.
    """
    pixels, name, kind = _decode(content, name)
    if pixels.ndim == 3:
        pixels = _drop_alpha(pixels, name).max(2)
    if kind != "JPEG":
        return (pixels != 0).astype(np.uint8)
    if 0 < pixels.max() < 128:
        raise UserError(f"{name}: a JPEG mask whose values end at {pixels.max()}; JPEG is lossy, save masks as PNG")
    return (pixels > 127).astype(np.uint8)


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


def _decode(content: bytes | str | Path, name: str) -> tuple[np.ndarray, str, str]:
    """Pixels as stored (BGR order), the name for messages, and the file's kind."""
    if not isinstance(content, bytes):
        name = name or str(content)
        content = read_file(content, name)
    name = name or "image"
    kind = "JPEG" if content.startswith(b"\xff\xd8") else "PNG" if content.startswith(b"\x89PNG") else ""
    complete = _END[kind] in content[-4096:] if kind else bool(content)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if complete else None
    except cv2.error:
        pixels = None
    if pixels is None or not pixels.size:
        state = "not a readable PNG, JPEG, BMP or TIFF (corrupt or truncated?)" if content else "an empty file"
        raise UserError(f"{name}: {state}; replace the file, or take it out of the data set")
    return pixels, name, kind


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
        raise UserError(f"{name}: has transparent pixels, whose gray value is undefined; save it without alpha channel")
    return pixels[..., :3]
