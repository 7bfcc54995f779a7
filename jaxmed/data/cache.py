"""The decoded-image cache: every image of a source is decoded and resized once, then memory-mapped.

One folder per (source contents, size, transform version), under `<cache_dir>/decoded/`:
    pixels.npy       uint8 [n, size, size, 2]: gray image (bilinear), mask in {0, 1} (nearest)
    thumbnails.npy   uint8 [n, 32, 32]: for duplicate search, so that it does not decode again either
    about.json       what it is, and the cases left out with the reason
The folder is written under a temporary name and renamed, so a reader sees all of it or nothing. All processes of a
machine share the pixels through the page cache.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxmed.data.cases import Source
from jaxmed.data.reading import Progress, parallel_map, read_case
from jaxmed.data.similarity import THUMBNAIL, thumbnail
from jaxmed.errors import UserError

TRANSFORM_VERSION = 1  # raise it when `resize_case` or `thumbnail` changes: old caches are then not used any more
_STALE_SECONDS = 24 * 3600.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        if index in self.skipped:
            raise UserError(f"case {index} was left out of the cache: {self.skipped[index]}")
        pixels = self._pixels[index]
        return np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1])

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
    key, broken = _key(source, size)
    folder = Path(cache_dir).expanduser() / "decoded" / key
    cache = _open(folder, size, len(source))
    if cache is None:
        try:
            cache = _build(source, size, folder, broken, skip_bad, log)
        except OSError as error:
            raise _disk_error(error, folder, len(source) * size * size * 2) from error
    if cache.skipped and not skip_bad:
        raise UserError(_bad_files(cache.skipped.values(), len(source)))
    for row, reason in cache.skipped.items():
        log(f"left out: {source.cases[row].case_id}: {reason}")
    return cache


def resize_case(image: np.ndarray, mask: np.ndarray | None, size: int) -> UInt8[np.ndarray, "size size 2"]:
    """Image bilinear, mask nearest, stacked; "exact" because OpenCV's plain nearest is shifted against bilinear."""
    out = np.zeros((size, size, 2), np.uint8)
    out[..., 0] = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if mask is not None:
        out[..., 1] = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return out


def _key(source: Source, size: int) -> tuple[str, dict[int, str]]:
    """The folder's name, and the cases whose files are not even there."""

    def fingerprint(index: int) -> tuple[str, str]:
        try:
            return source.fingerprint(index), ""
        except (UserError, OSError) as error:
            return f"unreadable: {error}", str(error)

    prints = list(parallel_map(fingerprint, len(source)))
    broken = {row: reason for row, (_, reason) in enumerate(prints) if reason}
    text = json.dumps([TRANSFORM_VERSION, size, bool(source.has_masks), [text for text, _ in prints]])
    return hashlib.sha256(text.encode()).hexdigest()[:32], broken


def _open(folder: Path, size: int, count: int) -> Cache | None:
    """The finished cache in `folder`, or None if there is none or it is damaged (a crash, a copy cut short)."""
    try:
        about = json.loads((folder / "about.json").read_text())
        skipped = {int(row): reason for row, reason in about["skipped"].items()}
        cache = Cache(folder, size, count, skipped, about["has_masks"])
        whole = cache._pixels.shape == (count, size, size, 2) and len(cache.thumbnails) == count
    except (OSError, ValueError, KeyError):
        return None
    return cache if whole else None


def _build(source, size, folder, broken, skip_bad, log) -> Cache:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    work = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    work.mkdir()
    try:
        skipped = _decode_all(source, size, work, broken, log)
        if skipped and not skip_bad:
            raise UserError(_bad_files(skipped.values(), len(source)))
        about = {"source": source.name, "cases": len(source), "size": size, "transform_version": TRANSFORM_VERSION}
        about |= {"has_masks": bool(source.has_masks), "skipped": skipped}
        (work / "about.json").write_text(json.dumps(about, indent=1))
        _publish(work, folder, size, len(source))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Cache(folder, size, len(source), skipped, bool(source.has_masks))


def _decode_all(source, size, work, broken, log) -> dict[int, str]:
    """Writes pixels and thumbnails in order with plain writes: a memory map would meet a full disk as a bus error."""

    def one(index: int):
        try:
            if index in broken:
                return broken[index]
            case = read_case(source, index)
        except UserError as error:
            return str(error)
        return resize_case(case["image"], case.get("mask"), size), thumbnail(case["image"])

    skipped, count = {}, len(source)
    progress = Progress(f"decoding {count} images of '{source.name}' to {size} x {size}, once", count, log)
    empty = np.zeros((size, size, 2), np.uint8), np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    with open(work / "pixels.npy", "wb") as pixels, open(work / "thumbnails.npy", "wb") as thumbs:
        _header(pixels, (count, size, size, 2))
        _header(thumbs, (count, THUMBNAIL, THUMBNAIL))
        for index, result in enumerate(parallel_map(one, count)):
            if isinstance(result, str):
                skipped[index], result = result, empty
            pixels.write(result[0].tobytes())
            thumbs.write(result[1].tobytes())
            progress.step()
        for file in (pixels, thumbs):
            file.flush()
            os.fsync(file.fileno())
    progress.end(f", kept in {work.parent}")
    return skipped


def _publish(work: Path, folder: Path, size: int, count: int) -> None:
    """Gives the finished folder its name; another process may have been faster, with the same contents."""
    if folder.exists() and _open(folder, size, count) is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        work.rename(folder)
    except OSError:
        if _open(folder, size, count) is None:
            raise


def _remove_stale(folder: Path) -> None:
    """Removes what a killed build of the same cache left behind, a day later."""
    for left in folder.parent.glob(f"{folder.name}.*.tmp"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _header(file, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _bad_files(reasons, count: int) -> str:
    lines = [f"  {reason}" for reason in reasons]
    head = f"{len(lines)} of {count} cases cannot be read:"
    return "\n".join([head, *lines, "repair or remove them, or leave them out with data.skip_bad=True"])


def _disk_error(error: OSError, folder: Path, needed: int) -> UserError:
    fix = f"it needs {needed / 1e6:.0f} MB; free some space or choose another place with data.cache_dir or JAXMED_CACHE"
    what = "no space left" if error.errno in _DISK_FULL else f"cannot write ({error.strerror or error})"
    return UserError(f"image cache {folder.parent}: {what}; {fix}")
