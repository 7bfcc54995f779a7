"""One image per case, and what is made from it and its mask, as elements of a batch."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmed.data import augment as basic
from jaxmed.data import augment_masks as masks
from jaxmed.data import augment_recipe as strong
from jaxmed.data.cache import Cache
from jaxmed.data.pipeline import PADDING
from jaxmed.data.views import INPUTS, NEED_MASK, derive_views
from jaxmed.errors import UserError

AUGMENTATIONS = {"basic": basic, "masks": masks, "strong": strong}


class ImageLoader:
    """Row of the source -> dict of numpy arrays:

    one uint8 [size, size, 1] per name in `inputs` ("image", "core", "boundary", "mask"; mask in {0, 1}),
    `label` int32, `case_id` int32 (row of source.cases), `weight` float32.
    """

    def __init__(
        self, cache: Cache, labels: np.ndarray, inputs: Sequence[str], augment: Mapping | None = None, kind: str = "basic"
    ):
        """Args:
            labels: class of every case of the source, -1 where it is not known.
            augment: options of the kind of augmentation, or None.
            kind: "basic" (`jaxmed.data.augment`), "strong" (`augment_recipe`) or "masks" (`augment_masks`).

        Raises:
            UserError: unknown inputs, inputs that need masks on a source without, bad augment options.
        """
        check_inputs(cache, inputs)
        if len(labels) != cache.num_cases:
            raise UserError(f"{len(labels)} labels for {cache.num_cases} cached cases: the cache is of another source")
        self.cache, self.labels, self.inputs = cache, np.asarray(labels, np.int32), tuple(inputs)
        if kind not in AUGMENTATIONS:
            raise UserError(f"data.augmentation={kind!r} is none of {', '.join(AUGMENTATIONS)}")
        self.kind, self.options = kind, AUGMENTATIONS[kind].check_options(augment) if augment else None
        self.size_bytes, self.skipped = len(self.inputs) * cache.size**2, cache.skipped

    def __len__(self) -> int:
        return self.cache.num_cases

    def check_trainable(self, rows: np.ndarray) -> None:
        """UserError if one of the cases has no label."""
        if (self.labels[rows] < 0).any():
            raise UserError(f"case {rows[self.labels[rows] < 0][0]} has no label: it cannot be trained on")

    def plain(self) -> "ImageLoader":
        """The same without augmentation."""
        return ImageLoader(self.cache, self.labels, self.inputs)

    def __call__(self, row: int | np.integer, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        row = int(row)
        if row == PADDING:
            black = np.zeros((self.cache.size, self.cache.size), np.uint8)
            return self._element(dict.fromkeys(self.inputs, black), PADDING, label=-1, weight=0.0)
        image, mask = self.cache.load(row)
        if self.options is not None:
            image, mask = AUGMENTATIONS[self.kind].augment(image, mask, rng, self.options)
        return self._element(derive_views(image, mask, self.inputs), row, label=int(self.labels[row]), weight=1.0)

    def _element(self, views: dict[str, np.ndarray], row: int, label: int, weight: float) -> dict[str, np.ndarray]:
        element = {name: view[..., None] for name, view in views.items()}
        return element | {"label": np.int32(label), "case_id": np.int32(row), "weight": np.float32(weight)}


def check_inputs(cache: Cache, inputs: Sequence[str]) -> None:
    """UserError: an unknown input, or one that is made from masks which the source does not have."""
    for name in inputs:
        if name not in INPUTS:
            raise UserError(f"input {name!r} is unknown; choose from {', '.join(INPUTS)}")
        if name in NEED_MASK and not cache.has_masks:
            raise UserError(
                f"input {name!r} is made from the lesion's `mask`, and this source has no masks: "
                'give them, or use the mask-free option experts=("image",)'
            )
