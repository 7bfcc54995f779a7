"""One image per case, its lesion mask to be learned, and perhaps one class."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.data import checks
from jaxmed.data.cache import Cache
from jaxmed.data.cases import Source
from jaxmed.data.image_loader import ImageLoader
from jaxmed.data.sampler import epoch_cases
from jaxmed.data.sources import make_source
from jaxmed.errors import UserError
from jaxmed.registry import model_options
from jaxmed.tasks.segmentation import Segmentation
from jaxmed.tasks.segmentation_options import loss_options
from jaxmed.train.kind_images import Images

NEEDS = ("image", "mask")
EMPTY = {"empty_mask": "empty masks: right for images without a lesion, a slip elsewhere"}


class MaskAndClass(Images):
    """`config.task="segmentation"`; see `jaxmed.train.kinds.Kind`. The network looks at the image alone."""

    fixed = ("size",)

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        if config.mix:
            raise UserError("config.mix: masks are not mixed; leave it empty where config.task='segmentation'")

    def open(self, *, predict: bool = False) -> Source:
        """UserError where training finds no masks."""
        source = make_source(self.config.data, needs=("image",) if predict else NEEDS, predict=predict)
        source.notes += [f"true masks: {source.mask_origin}"] if source.has_masks else []
        return source

    def needs_mask(self) -> bool:
        """No input is made from the mask."""
        return False

    def model_options(self) -> dict[str, Any]:
        """No class head where `config.loss.classification` is 0; the picture's size for networks that fix it.

        UserError for a network that makes no masks.
        """
        name = self.config.model.name
        known = model_options(name)
        if "mask_channels" not in known:
            raise UserError(f"config.model.name={name!r} makes no masks: see configs/decoder_interaction.py for those that do")
        options = {} if loss_options(self.config.loss).shares[1] else {"num_classes": None}
        return options | ({"img_size": self.config.data.size} if "img_size" in known else {})

    def loader(self, source: Source, cache: Cache, model: nnx.Module) -> ImageLoader:
        """With masks wherever the source has them."""
        labels = np.array([case.label for case in source.cases], np.int32)
        inputs = (*model.input_names, *(("mask",) if source.has_masks else ()))
        return ImageLoader(cache, labels, inputs, dict(self.config.data.augment), self.config.data.augmentation)

    def task(self, model: nnx.Module, source: Source | None = None, rows: np.ndarray | None = None) -> Segmentation:
        """An epoch's updates, for the schedule of the loss, follow from the training `rows`."""
        classes = tuple(source.classes if source else self.config.data.classes)
        draws = epoch_cases(len(rows), self.config.data.epoch_factor) if rows is not None else 1
        steps = -(-draws // self.config.batch_size)
        return Segmentation(classes, model.num_classes is not None, loss_options(self.config.loss), steps)

    def example(self, model: nnx.Module, size: int) -> dict[str, Any]:
        side = self.config.data.size
        return super().example(model, size) | {"mask": jax.ShapeDtypeStruct((size, side, side, 1), np.uint8)}

    def check(self, log) -> checks.Report:
        source = make_source(self.config.data, needs=NEEDS)
        return checks.check_data(source, size=self.config.data.size, data=self.config.data, flags=EMPTY, log=log)
