"""Two views per breast as elements of a batch."""

from collections.abc import Mapping

import numpy as np

from jaxmed.data.augment_views import augment_views, check_options
from jaxmed.data.breast_cache import BreastCache
from jaxmed.data.breasts import PAIR
from jaxmed.data.pipeline import PADDING
from jaxmed.errors import UserError


class BreastLoader:
    """Row of the source -> dict of numpy arrays:

    `cc` and `mlo` [h, w, 1] (uint8 or uint16, as in the cache), `label` int32 (-1: not known), `case_id` int32 (row of
    source.breasts), `weight` float32.
    """

    def __init__(self, cache: BreastCache, labels: np.ndarray, augment: Mapping | None = None):
        """Args:
            labels: class of every breast, -1 where it is not known.
            augment: options of `jaxmed.data.augment_views`, or nothing, as in the paper. A flip turns both views.

        Raises:
            UserError: bad augment options.
        """
        self.cache, self.labels = cache, np.asarray(labels, np.int32)
        self.options = check_options(augment) if augment else None
        self.skipped = cache.skipped
        self.size_bytes = len(PAIR) * cache.size[0] * cache.size[1] * np.dtype(cache.dtype).itemsize

    def __len__(self) -> int:
        return self.cache.num_cases

    def check_trainable(self, rows: np.ndarray) -> None:
        """UserError if the label of one of the breasts is not known."""
        unknown = rows[self.labels[rows] < 0]
        if len(unknown):
            raise UserError(f"breast {unknown[0]} has no label: it cannot be trained on")

    def plain(self) -> "BreastLoader":
        """The same without augmentation."""
        return BreastLoader(self.cache, self.labels)

    def __call__(self, row: int | np.integer, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        row = int(row)
        if row == PADDING:
            return self._element(np.zeros((len(PAIR), *self.cache.size), self.cache.dtype), -1, PADDING, 0.0)
        views = self.cache.load(row)
        if self.options is not None:
            views = augment_views(views, rng, self.options)
        return self._element(views, self.labels[row], row, 1.0)

    def _element(self, views: np.ndarray, label: int, row: int, weight: float) -> dict[str, np.ndarray]:
        element = {view: pixels[..., None] for view, pixels in zip(PAIR, views, strict=True)}
        return element | {"label": np.int32(label), "case_id": np.int32(row), "weight": np.float32(weight)}
