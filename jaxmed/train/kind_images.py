"""One image per case, perhaps with its lesion mask, and one class."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.data import checks
from jaxmed.data.cache import Cache, build_cache
from jaxmed.data.cases import Source
from jaxmed.data.image_loader import ImageLoader
from jaxmed.data.sources import cache_root, make_source
from jaxmed.data.views import view_report, view_warnings
from jaxmed.evaluate.wrong import outlined
from jaxmed.registry import create_model
from jaxmed.tasks.classification import Classification
from jaxmed.tasks.gmic import task_class


class Images:
    """`config.task="classification"`; see `jaxmed.train.kinds.Kind`."""

    predict_source = "folder"
    images_per_case = 1
    fixed = ()

    def __init__(self, config: ConfigDict):
        self.config = config

    def open(self, *, predict: bool = False) -> Source:
        """UserError if the source has no masks and the network looks at masked views."""
        needs = ("image", "mask") if self.needs_mask() else ("image",)
        return make_source(self.config.data, needs=needs, predict=predict)

    def needs_mask(self) -> bool:
        """Whether any of the network's inputs is made with the lesion mask; found without making its weights."""
        options = dict(self.config.model.options)
        model = nnx.eval_shape(lambda: create_model(self.config.model.name, num_classes=2, rngs=nnx.Rngs(0), **options))
        return bool({"core", "boundary"} & set(model.input_names))

    def model_options(self) -> dict[str, Any]:
        return {}

    def fit(self, model: nnx.Module) -> nnx.Module:
        return model

    def cache(self, source: Source, log) -> Cache:
        data = self.config.data
        return build_cache(source, data.size, cache_root(data), skip_bad=data.skip_bad, log=log)

    def thumbnails(self, cache: Cache) -> np.ndarray:
        return cache.thumbnails

    def warnings(self, source: Source, cache: Cache) -> list[str]:
        if not self.needs_mask():
            return []
        readable = [i for i in range(len(source)) if i not in cache.skipped]
        return view_warnings(view_report(cache, readable, [case.case_id for case in source.cases]), len(readable))

    def loader(self, source: Source, cache: Cache, model: nnx.Module) -> ImageLoader:
        labels = np.array([case.label for case in source.cases], np.int32)
        return ImageLoader(cache, labels, model.input_names, dict(self.config.data.augment), self.config.data.augmentation)

    def task(self, model: nnx.Module, source: Source | None = None, rows: np.ndarray | None = None) -> Classification:
        """A network's gate, if it has one, weighs one expert per input."""
        experts = tuple(model.input_names) if len(model.input_names) > 1 else ()
        classes = tuple(source.classes if source else self.config.data.classes)
        return task_class(model)(classes, experts, tuple(getattr(model, "routers", ())))

    def example(self, model: nnx.Module, size: int) -> dict[str, Any]:
        side = self.config.data.size
        view = jax.ShapeDtypeStruct((size, side, side, 1), np.uint8)
        number = {key: jax.ShapeDtypeStruct((size,), np.int32) for key in ("label", "case_id")}
        return dict.fromkeys(model.input_names, view) | number | {"weight": jax.ShapeDtypeStruct((size,), np.float32)}

    def picture(self, source: Source, cache: Cache, case_id: str) -> np.ndarray:
        """With the mask's border where there is a mask."""
        index = next(i for i, case in enumerate(source.cases) if case.case_id == case_id)
        image, mask = cache.load(index)
        return outlined(image, mask if source.has_masks else None)

    def mask_origin(self, source: Source) -> str:
        return source.mask_origin if self.needs_mask() else ""

    def check(self, log) -> checks.Report:
        return checks.check_data(self.open(), size=self.config.data.size, data=self.config.data, log=log)
