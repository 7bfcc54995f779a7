"""How the overlap of masks depends on the size of the lesion: the mean IoU of small, middle and large lesions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxmed.evaluate.intervals import percentile_interval
from jaxmed.evaluate.masks import has_lesion
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.resample import RESAMPLES, SEED, case_counts, draw_clusters

NAMES = ("small", "middle", "large")


@dataclass(frozen=True)
class SizeGroup:
    """A third of the lesions: number, range of sizes (share of the picture), mean IoU and its 95 % interval."""

    name: str
    number: int
    smallest: float
    largest: float
    mean: float
    low: float
    high: float


def lesions(table: Predictions) -> Predictions:
    """The rows with a lesion, one per case: means over repeats."""
    table = table.with_mask()
    return table.take(has_lesion(table)).average_repeats()


def lesion_size(table: Predictions) -> Float[np.ndarray, " n"]:
    """Lesion pixels as a share of the picture."""
    return table.extras["lesion_pixels"] / table.extras["mask_pixels"]


def size_groups(table: Predictions) -> list[SizeGroup]:
    """The thirds of `lesions(table)` by size, from the smallest; none with less than three lesions.

    The intervals are of the cluster bootstrap, the borders between the thirds held fixed.
    """
    if len(table) < len(NAMES):
        return []
    size, overlap, clusters = lesion_size(table), table.extras["iou"], table.clusters()
    member = np.zeros((len(table), len(NAMES)))
    for k, rows in enumerate(np.array_split(np.argsort(size, kind="stable"), len(NAMES))):
        member[rows, k] = 1
    draws = draw_clusters(clusters, member.argmax(axis=1), RESAMPLES, SEED)
    means = [(counts @ (member * overlap[:, None])) / (counts @ member) for counts in case_counts(draws, clusters)]
    intervals = [percentile_interval(column) for column in np.concatenate(means).T]
    return [
        SizeGroup(name, int(rows.sum()), float(size[rows].min()), float(size[rows].max()), float(overlap[rows].mean()), *span)
        for name, rows, span in zip(NAMES, member.T > 0, intervals, strict=True)
    ]
