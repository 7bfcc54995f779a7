"""The decoded images of a source of cases, each with its mask: see `jaxmed.data.decoded` for the folder.

    pixels.npy       uint8 [n, size, size, 2]: gray image (bilinear), mask in {0, 1} (nearest)
    thumbnails.npy   uint8 [n, 32, 32]: for duplicate search, so that it does not decode again either
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxmed.data.cases import Source
from jaxmed.data.decoded import Plan, decoded_folder
from jaxmed.data.reading import read_case
from jaxmed.data.similarity import THUMBNAIL, thumbnail
from jaxmed.errors import UserError

TRANSFORM_VERSION = 1  # raise it when `resize_case` or `thumbnail` changes: old caches are then not used any more


@dataclass(frozen=True)
class Cache:
    """A finished cache. Cheap to pickle: a worker that receives it opens the same file for itself, on first use."""

    path: Path  # the folder
    size: int
    num_cases: int
    skipped: dict[int, str] = field(default_factory=dict)  # row -> why it could not be read
    has_masks: bool = True

    def load(self, index: int) -> tuple[UInt8[np.ndarray, "size size"], UInt8[np.ndarray, "size size"]]:
        """Image and mask (zeros if the source has no masks) of one case.

        Raises:
            UserError: the case was skipped because its files could not be read.
        """
        pixels = self.pixels(index)
        return np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1])

    def pixels(self, index: int) -> UInt8[np.ndarray, "..."]:
        """The stored array of one case; UserError if it was skipped."""
        if index in self.skipped:
            raise UserError(f"case {index} was left out of the cache: {self.skipped[index]}")
        return self._pixels[index]

    @cached_property
    def thumbnails(self) -> UInt8[np.ndarray, "n 32 32"]:
        """32 x 32 thumbnails of the native images; zeros (which resemble nothing) for skipped cases."""
        return np.load(self.path / "thumbnails.npy")

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.load(self.path / "pixels.npy", mmap_mode="r")

    def __getstate__(self) -> dict:
        return {item.name: getattr(self, item.name) for item in fields(self)}  # the open file stays behind


def build_cache(
    source: Source, size: int, cache_dir: Path | str, *, skip_bad: bool = False, log: Callable[[str], None] = print
) -> Cache:
    """Opens the cache of `source` at `size`, decoding every case first if there is none yet.

    Args:
        size: side of the square network input, in pixels. The picture is stretched to it, as in the paper.
        cache_dir: where caches live; see `jaxmed.data.sources.cache_root`.
        skip_bad: leave unreadable cases out, named in `Cache.skipped`, instead of raising.

    Raises:
        UserError: unreadable cases (all of them are listed), a full disk or an unwritable `cache_dir`.
    """

    def decode(index: int) -> tuple[np.ndarray, np.ndarray]:
        case = read_case(source, index)
        return resize_case(case["image"], case.get("mask"), size), thumbnail(case["image"])

    has_masks = bool(source.has_masks)
    plan = Plan(
        arrays={"pixels": (size, size, 2), "thumbnails": (THUMBNAIL, THUMBNAIL)},
        decode=decode,
        key=[TRANSFORM_VERSION, size, has_masks],
        about={"size": size, "transform_version": TRANSFORM_VERSION, "has_masks": has_masks},
        what="images",
        size=f"{size} x {size}",
    )
    folder, about = decoded_folder(source, plan, cache_dir, skip_bad, log)
    return Cache(folder, size, len(source), about["skipped"], has_masks)


def resize_case(image: np.ndarray, mask: np.ndarray | None, size: int) -> UInt8[np.ndarray, "size size 2"]:
    """Image bilinear, mask nearest, stacked; "exact" because OpenCV's plain nearest is shifted against bilinear."""
    out = np.zeros((size, size, 2), np.uint8)
    out[..., 0] = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if mask is not None:
        out[..., 1] = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return out
