"""The decoded views of a source of breasts: see `jaxmed.data.decoded` for the folder.

    pixels.npy    [n, 2, height, width]: CC, MLO; uint8, or uint16 with `data.bits=16`

A full-size pair takes 4.8 MB, or 9.6 MB with 16 bits; an epoch reads it from the page cache and decodes no DICOM again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt

from jaxmed.data import breast
from jaxmed.data.breasts import PAIR, BreastSource
from jaxmed.data.cache import Cache
from jaxmed.data.decoded import Plan, decoded_folder
from jaxmed.errors import UserError

TRANSFORM_VERSION = 1  # raise it when `decode_pair` changes
DTYPES = {8: "uint8", 16: "uint16"}


@dataclass(frozen=True)
class BreastCache(Cache):
    """A finished cache of breasts; `size` is (height, width)."""

    size: tuple[int, int]
    has_masks: bool = False
    bits: int = 8

    @property
    def dtype(self) -> str:
        """Of the pixels."""
        return DTYPES[self.bits]

    def load(self, index: int) -> UInt[np.ndarray, "2 h w"]:
        """The views of one breast; UserError if it was skipped because its files could not be read."""
        return np.ascontiguousarray(self.pixels(index))


def build_breast_cache(
    source: BreastSource, size: tuple[int, int], cache_dir: Path | str, *, bits: int = 8, skip_bad: bool = False,
    log: Callable[[str], None] = print,
) -> BreastCache:
    """Opens the cache of `source` at `size` per view, decoding every breast first; as `build_cache`.

    The views are stretched to `size`, as in the paper; sources can pad them to its ratio before (`data.pad`).

    Raises:
        UserError: besides those of `build_cache`, another number of `bits` than 8 and 16.
    """
    if bits not in DTYPES:
        raise UserError(f"data.bits={bits}: gray levels are kept with 8 or 16 bits")
    plan = Plan(
        arrays={"pixels": (len(PAIR), *size)},
        decode=lambda index: (decode_pair(source, index, size, bits),),
        key=["breasts", TRANSFORM_VERSION, *size, bits],
        about={"size": list(size), "bits": bits, "transform_version": TRANSFORM_VERSION},
        what="breasts",
        size=f"{size[0]} x {size[1]}",
        dtype=DTYPES[bits],
    )
    folder, about = decoded_folder(source, plan, cache_dir, skip_bad, log)
    return BreastCache(folder, size, len(source), about["skipped"], bits=bits)


def decode_pair(source: BreastSource, index: int, size: tuple[int, int], bits: int = 8) -> UInt[np.ndarray, "2 h w"]:
    """The views of one breast at network size; whatever goes wrong is a UserError that names the breast."""
    name = source.cases[index].case_id
    try:
        pair = source.read(index)
    except (OSError, cv2.error) as error:
        raise UserError(f"{name}: cannot be read: {error}") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    for view in PAIR:
        if pair[view].dtype != np.uint16 or pair[view].ndim != 2:
            raise UserError(f"{name}: expected {view} uint16 [h, w], got {pair[view].dtype} {list(pair[view].shape)}")
    views = np.stack([breast.resize(pair[view], size) for view in PAIR])
    return views if bits == 16 else breast.to_uint8(views)
