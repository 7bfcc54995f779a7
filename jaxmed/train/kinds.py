"""The kinds of runs, by `config.task`: what a case is, how it reaches the network, and what is learned from it."""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.data.pipeline import Loader
from jaxmed.errors import UserError

# loaded on use: four views need neither masks nor tfds, single images no DICOM
_KINDS = {
    "classification": ("jaxmed.train.kind_images", "Images"),
    "segmentation": ("jaxmed.train.kind_segmentation", "MaskAndClass"),
    "two_views": ("jaxmed.train.kind_two_views", "TwoViews"),
    "four_views": ("jaxmed.train.kind_four_views", "FourViews"),
}


class Kind(Protocol):
    """One kind of run; made from its config. A source has `name`, `classes`, `cases` and `notes`."""

    predict_source: str  # the `data.source` that --mode=predict reads --input with
    images_per_case: int  # for the speed that a run prints
    fixed: tuple[str, ...]  # keys of config.data that belong to a trained network: other data may not change them

    def open(self, *, predict: bool = False) -> Any:
        """The configured source; with `predict` labels may be missing."""

    def model_options(self) -> dict[str, Any]:
        """Constructor options that follow from data and task; num_classes is the number of classes unless it is among them."""

    def fit(self, model: nnx.Module) -> nnx.Module:
        """The network as it takes the inputs of this kind."""

    def cache(self, source: Any, log) -> Any:
        """The decoded pixels of the source."""

    def thumbnails(self, cache: Any) -> np.ndarray | None:
        """uint8 [n, 32, 32] in which copies of a picture resemble each other; None where pictures do not tell."""

    def warnings(self, source: Any, cache: Any) -> list[str]:
        """What a reader of the results should know about the data."""

    def loader(self, source: Any, cache: Any, model: nnx.Module) -> Loader:
        """What the pipeline reads."""

    def task(self, model: nnx.Module, source: Any = None, rows: np.ndarray | None = None) -> Any:
        """What the network learns; class weights come from the training `rows` of `source`."""

    def example(self, model: nnx.Module, size: int) -> Mapping[str, Any]:
        """Shapes and types of a batch of `size`."""

    def picture(self, source: Any, cache: Any, case_id: str) -> np.ndarray:
        """The case of a prediction row as the network gets it, uint8 [h, w] or [h, w, 3]."""

    def mask_origin(self, source: Any) -> str:
        """Whose masks the network looks at; "" if it looks at none."""

    def check(self, log) -> Any:
        """The report of --mode=check_data."""


def kind_of(config: ConfigDict) -> Kind:
    """The kind that `config.task` names."""
    if config.task not in _KINDS:
        raise UserError(f"config.task={config.task!r} is unknown; choose one of {', '.join(sorted(_KINDS))}")
    module, name = _KINDS[config.task]
    return getattr(importlib.import_module(module), name)(config)
