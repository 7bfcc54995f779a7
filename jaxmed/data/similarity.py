"""Near-duplicate images: Pearson correlation of 32 x 32 thumbnails, linked into groups.

Public breast-ultrasound sets hold many frames of the same lesion. Two such frames in different splits leak the answer,
and two with different labels contradict each other, so both are looked for before a split is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL = 32
DUPLICATE_THRESHOLD = 0.95
CONFLICT_THRESHOLD = 0.99
_BLOCK = 1024  # rows of the correlation matrix held at once: 8 MB per 1,000 cases instead of n x n


@dataclass(frozen=True)
class Pairs:
    """Pairs of similar cases: `first[k] < second[k]` are rows, `correlation[k]` is theirs."""

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    correlation: Float[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        return zip(self.first.tolist(), self.second.tolist(), self.correlation.tolist(), strict=True)

    def above(self, threshold: float) -> "Pairs":
        """The pairs whose correlation is above `threshold`."""
        keep = self.correlation > threshold
        return Pairs(self.first[keep], self.second[keep], self.correlation[keep])


NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def thumbnail(image: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "32 32"]:
    """The gray image at its native size, reduced to 32 x 32 by area (every pixel counts, so speckle averages out)."""
    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def correlation_matrix(thumbnails: UInt8[np.ndarray, "n 32 32"]) -> Float[np.ndarray, "n n"]:
    """Pearson correlation of every pair. A constant image correlates 0 with everything, itself included."""
    unit = _unit_rows(thumbnails)
    return unit @ unit.T


def similar_pairs(thumbnails: UInt8[np.ndarray, "n 32 32"], threshold: float = DUPLICATE_THRESHOLD) -> Pairs:
    """Every pair that correlates above `threshold`, found block by block, sorted by rows."""
    unit = _unit_rows(thumbnails)
    found = [_pairs_of_block(unit, start, threshold) for start in range(0, len(unit), _BLOCK)]
    if not found:
        return NO_PAIRS
    return Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def duplicate_groups(
    thumbnails: UInt8[np.ndarray, "n 32 32"], threshold: float = DUPLICATE_THRESHOLD
) -> Int[np.ndarray, " n"]:
    """Single-linkage groups (a chain of pairs above `threshold` is one group), numbered by their first case."""
    pairs = similar_pairs(thumbnails, threshold)
    return link(len(thumbnails), pairs.first, pairs.second)


def label_conflicts(pairs: Pairs, labels: np.ndarray, threshold: float = CONFLICT_THRESHOLD) -> Pairs:
    """The pairs above `threshold` whose known labels differ: the same picture, called two things."""
    pairs = pairs.above(threshold)
    one, two = np.asarray(labels)[pairs.first], np.asarray(labels)[pairs.second]
    keep = (one != two) & (one >= 0) & (two >= 0)
    return Pairs(pairs.first[keep], pairs.second[keep], pairs.correlation[keep])


def link(count: int, first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, " n"]:
    """Connected components of `count` cases under the given links, numbered by their first case."""
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    component = connected_components(links, directed=False)[1]
    _, where, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(where))[inverse]


def _unit_rows(thumbnails: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1: their dot products are correlations. Constant images become zero rows, not NaN."""
    rows = np.asarray(thumbnails, np.float64).reshape(len(thumbnails), THUMBNAIL * THUMBNAIL)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 1e-6, norm, np.inf)


def _pairs_of_block(unit: np.ndarray, start: int, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j) with i in one block of rows and j > i."""
    block = unit[start : start + _BLOCK] @ unit[start:].T
    row, column = np.nonzero(np.triu(block, 1) > threshold)
    return row + start, column + start, block[row, column]
