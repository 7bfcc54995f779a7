"""Burnt-in writing in ultrasound pictures: where the scan is, what lies outside it, and what may be writing inside.

The rule, in pixels:
1. scan region: where most of a neighbourhood is not black (writing is mostly gaps), the largest such component, its convex
   hull, widened by a hair;
2. every component outside it that is not black is taken for writing, marks or scales and removed, except large textured ones,
   which may be a second scan (dual view): they stay and are reported;
3. inside, small bright sharp shapes and coloured pixels may be writing, calipers or body marks: they cannot be removed
   without painting over the scan, and are reported.

This is no certified de-identification. It misses writing, and it takes some tissue for writing: somebody has to look.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

BLACK = 12  # gray levels up to here count as black
COLOURED = 40  # spread of the channels from which a pixel is coloured
DENSE = 0.6  # share of a neighbourhood that is not black, in the scan
SECOND_SCAN = 0.02  # of the picture: textured components from this size on stay
DIM = 60  # gray level that 1 % of a component's pixels must reach to be named; darker ones are removed all the same
CONTRAST = 70  # gray levels of a stroke above what is left and right of it
BRIGHT = 110  # gray level of a stroke
STROKE = (0.015, 0.09)  # height of upright strokes, in picture heights
NARROW = 0.012  # their width


class Box(NamedTuple):
    """A rectangle in pixels, and what it holds: "text", "colour", "dim", "textured" or "letters"."""

    x: int
    y: int
    width: int
    height: int
    kind: str


@dataclass(frozen=True)
class Finding:
    """What was found in one picture.

    Attributes:
        clean: the picture with the removed pixels black.
        removed: boxes of what was removed, outside the scan; dim ones, mostly the scan's dark margin, are not listed.
        suspicious: boxes that somebody must look at: possible writing inside the scan, textured regions outside.
        removed_share: share of the picture's pixels that were not black and now are.
        scan: the scan region.
    """

    clean: UInt8[np.ndarray, "h w *c"]
    removed: tuple[Box, ...]
    suspicious: tuple[Box, ...]
    removed_share: float
    scan: Bool[np.ndarray, "h w"]


def remove_burnt_in(picture: UInt8[np.ndarray, "h w *c"], boxes: tuple[Box, ...] = ()) -> Finding:
    """Applies the rule to one picture, gray or BGR.

    Args:
        boxes: where the scanner says the scan is (DICOM's ultrasound regions); everything else is then outside.
    """
    colour = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    gray = colour.max(axis=2)  # blue writing is dark in luma
    scan = find_scan(gray, boxes)
    outside = (gray > BLACK) & ~scan
    removed, kept = _sort_components(outside, gray, colour)
    erase = np.zeros(gray.shape, bool)
    for _, member in removed:
        erase |= member
    erase &= ~scan
    clean = picture.copy()
    clean[erase] = 0
    named = tuple(box for box, _ in removed if box.kind != "dim")
    suspicious = (*(box for box, _ in kept), *_inside(colour, gray, scan))
    return Finding(clean, named, suspicious, float((erase & outside).mean()), scan)


def find_scan(gray: UInt8[np.ndarray, "h w"], boxes: tuple[Box, ...] = ()) -> Bool[np.ndarray, "h w"]:
    """The scan region; empty where nothing is dense enough."""
    allowed = np.ones(gray.shape, bool)
    if boxes:
        allowed[:] = False
        for box in boxes:
            allowed[box.y : box.y + box.height, box.x : box.x + box.width] = True
    bright = ((gray > BLACK) & allowed).astype(np.float32)
    window = max(5, round(0.05 * min(gray.shape)) | 1)
    dense = cv2.boxFilter(bright, -1, (window, window), borderType=cv2.BORDER_REPLICATE) > DENSE
    dense = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_OPEN, np.ones((window, window), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dense, connectivity=4)
    region = np.zeros(gray.shape, np.uint8)
    if count > 1:
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        points = cv2.findNonZero((labels == largest).astype(np.uint8))
        cv2.fillConvexPoly(region, cv2.convexHull(points), 1)
        edge = 2 * (window // 4) + 3  # the neighbourhood is less than dense along the scan's border
        region = cv2.dilate(region, np.ones((edge, edge), np.uint8))
    return region.astype(bool) & allowed


def _sort_components(outside: np.ndarray, gray: np.ndarray, colour: np.ndarray) -> tuple[list, list]:
    """(removed, kept) components outside the scan with their pixels; letters of a word count as one."""
    reach = max(3, round(0.012 * min(gray.shape)) | 1)
    joined = cv2.dilate(outside.astype(np.uint8), np.ones((reach, 2 * reach + 1), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    removed, kept = [], []
    for number in range(1, count):
        x, y, width, height = stats[number, :4]
        window = np.s_[y : y + height, x : x + width]
        member = np.zeros(gray.shape, bool)
        member[window] = labels[window] == number
        pixels = outside[window] & member[window]
        if _is_scan(gray[window][pixels], member[window].sum(), outside.size):
            kept.append((Box(x, y, width, height, "textured"), member))
        elif np.percentile(gray[window][pixels], 99) < DIM:
            removed.append((Box(x, y, width, height, "dim"), member))
        else:
            spread = np.ptp(colour[window][pixels], axis=1)
            kind = "colour" if (spread > COLOURED).mean() > 0.2 else "text"
            removed.append((Box(x, y, width, height, kind), member))
    return removed, kept


def _is_scan(levels: np.ndarray, area: int, whole: int) -> bool:
    """A large, filled component of many gray levels; bars and boxes have few, writing is not filled."""
    if levels.size < SECOND_SCAN * whole or levels.size < DENSE * area:
        return False
    share = np.sort(np.bincount(levels, minlength=256))[::-1] / levels.size
    return bool(share[:8].sum() < 0.8)


def _inside(colour: np.ndarray, gray: np.ndarray, scan: np.ndarray) -> list[Box]:
    """Possible writing inside the scan."""
    spread = (colour.max(axis=2).astype(np.int16) - colour.min(axis=2)) > COLOURED
    found = _groups(spread & scan, gray.shape, "colour", minimum=6)
    return found + _groups(_letters(gray) & scan, gray.shape, "letters", minimum=6)


def _letters(gray: np.ndarray) -> np.ndarray:
    """Upright strokes: bright, narrow across and sharp.

    The beam blurs tissue sideways, so that bright tissue is wider than high; nearly every letter, figure and caliper has an
    upright stroke.
    """
    low, high = (max(4, round(share * gray.shape[0])) for share in STROKE)
    width = max(3, round(NARROW * gray.shape[0])) + 2
    hat = cv2.morphologyEx(gray, cv2.MORPH_TOPHAT, np.ones((1, width), np.uint8))
    strokes = ((hat > CONTRAST) & (gray > BRIGHT)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    right = (low <= stats[:, 3]) & (stats[:, 3] <= high) & (stats[:, 2] <= 1.2 * stats[:, 3])
    right[0] = False
    return right[labels]


def _groups(mask: np.ndarray, shape: tuple[int, int], kind: str, minimum: int) -> list[Box]:
    """Boxes of neighbouring pixels of the mask: words instead of letters."""
    reach = max(3, round(0.02 * min(shape)) | 1)
    joined = cv2.dilate(mask.astype(np.uint8), np.ones((reach, 2 * reach + 1), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    inside = np.bincount(labels[mask], minlength=count)
    return [Box(*(int(v) for v in stats[k, :4]), kind) for k in range(1, count) if inside[k] >= minimum]
