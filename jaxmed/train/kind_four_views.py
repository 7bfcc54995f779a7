"""Four mammograms per study, two breasts, a label and a BI-RADS category per breast."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.data.checks import Report
from jaxmed.data.sources import cache_root, make_study_source
from jaxmed.data.studies import BIRADS, VIEWS, StudySource, check_subset
from jaxmed.data.study_cache import StudyCache, build_study_cache
from jaxmed.data.study_checks import check_studies
from jaxmed.data.study_loader import TARGETS, StudyLoader, study_targets
from jaxmed.errors import UserError
from jaxmed.registry import model_options
from jaxmed.tasks.breast_task import SIDES, BreastTask
from jaxmed.tasks.multiview import MultiView, class_weights


class FourViews:
    """`config.task="four_views"`; see `jaxmed.train.kinds.Kind`."""

    predict_source = "folder_views"
    images_per_case = len(VIEWS)
    fixed = ("birads_subset", "size", "crop_breast")

    def __init__(self, config: ConfigDict):
        self.config = config

    @property
    def birads(self) -> tuple[int, ...]:
        """The BI-RADS categories that are told apart."""
        subset = tuple(self.config.data.birads_subset)
        return check_subset(subset) if subset else BIRADS

    def open(self, *, predict: bool = False) -> StudySource:
        """UserError where training finds nothing to learn from."""
        source = make_study_source(self.config.data, predict=predict)
        if not predict and not known(source):
            raise UserError(
                f"data.source={source.name!r}: no breast has a label or one of the BI-RADS categories {self.birads}; train on "
                "a CSV with labels (folder_views; see configs/cnn_vssm.py), or use --mode=predict"
            )
        return source

    def model_options(self) -> dict[str, Any]:
        """UserError for a network of single images."""
        name = self.config.model.name
        if "num_birads" not in model_options(name):
            raise UserError(f"config.model.name={name!r} does not look at four views: choose one of multiview_*")
        return {"num_birads": len(self.birads)}

    def fit(self, model: nnx.Module) -> nnx.Module:
        return model

    def cache(self, source: StudySource, log) -> StudyCache:
        data = self.config.data
        return build_study_cache(source, data.size, cache_root(data), skip_bad=data.skip_bad, log=log)

    def thumbnails(self, cache: StudyCache) -> None:
        return None

    def warnings(self, source: StudySource, cache: StudyCache) -> list[str]:
        return []

    def loader(self, source: StudySource, cache: StudyCache, model: nnx.Module) -> StudyLoader:
        present = np.stack([study.present for study in source.studies])
        return StudyLoader(cache, study_targets(source), present, dict(self.config.data.augment))

    def task(self, model: nnx.Module, source: StudySource | None = None, rows: np.ndarray | None = None) -> MultiView:
        """Inverse-frequency class weights (if `config.loss.class_weights`) from the breasts of the training rows."""
        classes = {"label": tuple(self.config.data.classes), "birads": tuple(f"BI-RADS {k}" for k in self.birads)}
        shares = {name: self.config.loss.get(name, 0.5) for name in classes}  # eq. 11
        weights = dict.fromkeys(classes, ())
        if self.config.loss.get("class_weights", False) and rows is not None:
            targets = study_targets(source)
            weights = {
                name: class_weights(np.stack([targets[f"{side}_{name}"][rows] for side in SIDES]), len(classes[name]))
                for name in model.tasks
            }
        return MultiView(tuple(BreastTask(name, classes[name], weights[name], shares[name]) for name in model.tasks))

    def example(self, model: nnx.Module, size: int) -> dict[str, Any]:
        side, count = self.config.data.size, len(VIEWS)
        batch = {"views": jax.ShapeDtypeStruct((size, count, side, side, 1), np.uint8)}
        batch |= {"present": jax.ShapeDtypeStruct((size, count), bool), "weight": jax.ShapeDtypeStruct((size,), np.float32)}
        return batch | {key: jax.ShapeDtypeStruct((size,), np.int32) for key in (*TARGETS, "case_id")}

    def picture(self, source: StudySource, cache: StudyCache, case_id: str) -> np.ndarray:
        """CC beside MLO of the breast."""
        study, side = case_id.rsplit(":", 1)
        index = next(i for i, found in enumerate(source.studies) if found.study_id == study)
        return np.hstack(cache.load(index)[2 * SIDES.index(side) :][:2])

    def mask_origin(self, source: StudySource) -> str:
        return ""

    def check(self, log) -> Report:
        """Studies without labels, which a BI-RADS subset would drop, are looked at as --mode=predict sees them."""
        source = make_study_source(self.config.data)
        if not known(source):
            source = make_study_source(self.config.data, predict=True)
        return check_studies(source, log=log)


def known(source: StudySource) -> bool:
    """Whether anything is known about any breast."""
    return any(case.label >= 0 for case in source.cases)
