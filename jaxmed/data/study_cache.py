"""The decoded views of a source of studies: see `jaxmed.data.decoded` for the folder.

    pixels.npy    uint8 [n, 4, size, size]: the views in the order of `jaxmed.data.studies.VIEWS`, zeros where one is missing

There are no thumbnails: breasts against black resemble each other whoever they belong to, so copies are told by patient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxmed.data.breast import resize
from jaxmed.data.cache import Cache
from jaxmed.data.decoded import Plan, decoded_folder
from jaxmed.data.studies import VIEWS, StudySource
from jaxmed.errors import UserError

TRANSFORM_VERSION = 1  # raise it when `decode_study` changes


@dataclass(frozen=True)
class StudyCache(Cache):
    """A finished cache of studies."""

    has_masks: bool = False

    def load(self, index: int) -> UInt8[np.ndarray, "4 size size"]:
        """The views of one study; UserError if it was skipped because its files could not be read."""
        return np.ascontiguousarray(self.pixels(index))


def build_study_cache(
    source: StudySource, size: int, cache_dir: Path | str, *, skip_bad: bool = False, log: Callable[[str], None] = print
) -> StudyCache:
    """Opens the cache of `source` at `size` x `size` per view, decoding every study first; as `build_cache`."""
    plan = Plan(
        arrays={"pixels": (len(VIEWS), size, size)},
        decode=lambda index: (decode_study(source, index, size),),
        key=["studies", TRANSFORM_VERSION, size],
        about={"size": size, "transform_version": TRANSFORM_VERSION},
        what="studies",
        size=f"{size} x {size}",
    )
    folder, about = decoded_folder(source, plan, cache_dir, skip_bad, log)
    return StudyCache(folder, size, len(source), about["skipped"])


def decode_study(source: StudySource, index: int, size: int) -> UInt8[np.ndarray, "4 size size"]:
    """The views of one study at network size; whatever goes wrong is a UserError that names the study."""
    name = source.studies[index].study_id
    try:
        views = source.read(index)["views"]
    except (OSError, cv2.error) as error:
        raise UserError(f"{name}: cannot be read: {error}") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if views.dtype != np.uint8 or views.ndim != 3 or len(views) != len(VIEWS):
        raise UserError(f"{name}: expected four uint8 views [4, h, w], got {views.dtype} {list(views.shape)}")
    return views if views.shape[1:] == (size, size) else np.stack([resize(view, size) for view in views])
