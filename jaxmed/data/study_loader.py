"""Four views per study as elements of a batch."""

from collections.abc import Mapping

import numpy as np

from jaxmed.data.augment_views import augment_views, check_options
from jaxmed.data.pipeline import PADDING
from jaxmed.data.studies import VIEWS, StudySource
from jaxmed.data.study_cache import StudyCache
from jaxmed.errors import UserError

TARGETS = ("left_label", "right_label", "left_birads", "right_birads")


class StudyLoader:
    """Row of the source -> dict of numpy arrays:

    `views` uint8 [4, size, size, 1] in the order of `jaxmed.data.studies.VIEWS`, `present` bool [4], `left_label`,
    `right_label`, `left_birads`, `right_birads` int32 (-1: not known), `case_id` int32 (row of source.studies), `weight`
    float32.
    """

    def __init__(
        self, cache: StudyCache, targets: Mapping[str, np.ndarray], present: np.ndarray, augment: Mapping | None = None
    ):
        """Args:
            targets: int [n] for each name of TARGETS; see `study_targets`.
            present: bool [n, 4].
            augment: options of `jaxmed.data.augment_views`, or None.

        Raises:
            UserError: bad augment options.
        """
        self.cache, self.targets, self.present = cache, dict(targets), np.asarray(present, bool)
        self.options = check_options(augment) if augment else None
        self.labels = np.maximum(self.targets["left_label"], self.targets["right_label"])  # the worse breast's
        self.size_bytes, self.skipped = len(VIEWS) * cache.size**2, cache.skipped

    def __len__(self) -> int:
        return self.cache.num_cases

    def check_trainable(self, rows: np.ndarray) -> None:
        """UserError if nothing is known about one of the studies."""
        best = np.max([self.targets[name][rows] for name in TARGETS], 0)
        if (best < 0).any():
            raise UserError(f"study {rows[best < 0][0]} has neither a label nor a BI-RADS category: it cannot be trained on")

    def plain(self) -> "StudyLoader":
        """The same without augmentation."""
        return StudyLoader(self.cache, self.targets, self.present)

    def __call__(self, row: int | np.integer, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        row = int(row)
        if row == PADDING:
            black = np.zeros((len(VIEWS), self.cache.size, self.cache.size), np.uint8)
            return self._element(black, np.zeros(len(VIEWS), bool), dict.fromkeys(TARGETS, -1), PADDING, 0.0)
        views = self.cache.load(row)
        if self.options is not None:
            views = augment_views(views, rng, self.options)
        return self._element(views, self.present[row], {name: self.targets[name][row] for name in TARGETS}, row, 1.0)

    def _element(self, views, present, targets: Mapping[str, int], row: int, weight: float) -> dict[str, np.ndarray]:
        element = {"views": views[..., None], "present": present} | {name: np.int32(targets[name]) for name in TARGETS}
        return element | {"case_id": np.int32(row), "weight": np.float32(weight)}


def study_targets(source: StudySource) -> dict[str, np.ndarray]:
    """The class indices of all studies, int32 [n] for each name of TARGETS; -1 where not known."""
    rows = [source.targets(index) for index in range(len(source))]
    return {name: np.array([row[name] for row in rows], np.int32) for name in TARGETS}
