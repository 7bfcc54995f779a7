"""The CC and the MLO view of one breast, and one class."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.data.breast import to_uint8
from jaxmed.data.breast_cache import DTYPES, BreastCache, build_breast_cache
from jaxmed.data.breast_checks import check_breasts
from jaxmed.data.breast_loader import BreastLoader
from jaxmed.data.breasts import PAIR, SIZE, BreastSource
from jaxmed.data.checks import Report
from jaxmed.data.sources import cache_root, make_breast_source
from jaxmed.data.studies import view_size
from jaxmed.errors import UserError
from jaxmed.models.each_view import EachView
from jaxmed.tasks.classification import Classification
from jaxmed.tasks.gmic import task_class
from jaxmed.tasks.multiview import class_weights


class TwoViews:
    """`config.task="two_views"`; see `jaxmed.train.kinds.Kind`. Networks of single images look at each view on its own."""

    predict_source = "folder_pairs"
    images_per_case = len(PAIR)
    fixed = ("size", "bits", "crop_breast", "pad")

    def __init__(self, config: ConfigDict):
        self.config = config

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's inputs."""
        return view_size(self.config.data, SIZE)

    def open(self, *, predict: bool = False) -> BreastSource:
        return make_breast_source(self.config.data, predict=predict)

    def model_options(self) -> dict[str, Any]:
        return {}

    def fit(self, model: nnx.Module) -> nnx.Module:
        """UserError for a network of other inputs than two views or one image."""
        if tuple(model.input_names) == ("image",):
            return EachView(model)
        if tuple(model.input_names) != PAIR:
            inputs, name = ", ".join(model.input_names), self.config.model.name
            raise UserError(f"config.model.name={name!r} looks at {inputs}: choose a network of two views (x_pruning, dv_*) or "
                            "of one image")  # fmt: skip
        return model

    def cache(self, source: BreastSource, log) -> BreastCache:
        data = self.config.data
        return build_breast_cache(source, self.size, cache_root(data), bits=data.bits, skip_bad=data.skip_bad, log=log)

    def thumbnails(self, cache: BreastCache) -> None:
        return None

    def warnings(self, source: BreastSource, cache: BreastCache) -> list[str]:
        return []

    def loader(self, source: BreastSource, cache: BreastCache, model: nnx.Module) -> BreastLoader:
        labels = np.array([case.label for case in source.cases], np.int32)
        return BreastLoader(cache, labels, dict(self.config.data.augment))

    def task(self, model: nnx.Module, source: BreastSource | None = None, rows: np.ndarray | None = None) -> Classification:
        """Inverse-frequency class weights (if `config.loss.class_weights`) from the breasts of the training rows."""
        classes, weights = tuple(source.classes if source else self.config.data.classes), ()
        if self.config.loss.get("class_weights", False) and rows is not None:
            weights = class_weights(np.array([source.cases[row].label for row in rows]), len(classes))
        sparsity = {"beta": self.config.loss.beta} if "beta" in self.config.loss else {}
        return task_class(model)(classes, class_weights=weights, **sparsity)

    def example(self, model: nnx.Module, size: int) -> dict[str, Any]:
        view = jax.ShapeDtypeStruct((size, *self.size, 1), DTYPES[self.config.data.bits])
        number = {key: jax.ShapeDtypeStruct((size,), np.int32) for key in ("label", "case_id")}
        return dict.fromkeys(PAIR, view) | number | {"weight": jax.ShapeDtypeStruct((size,), np.float32)}

    def picture(self, source: BreastSource, cache: BreastCache, case_id: str) -> np.ndarray:
        """CC beside MLO."""
        index = next(i for i, case in enumerate(source.cases) if case.case_id == case_id)
        return to_uint8(np.hstack(cache.load(index)))

    def mask_origin(self, source: BreastSource) -> str:
        return ""

    def check(self, log) -> Report:
        return check_breasts(self.open(predict=True), log=log)  # breasts without labels are looked at, too
