"""A four-view run of seconds for tests: mammography phantoms at 64 pixels through the two-layer encoder of `tiny_config`."""

from ml_collections import ConfigDict

from jaxmed.config import base_config
from tests.train import tiny_config  # noqa: F401  registers the encoder


def get_config(arg=None):
    config = base_config()
    config.name, config.task = "tiny-views", "four_views"
    config.model.name = "multiview_resnet18"
    config.model.options.update(encoder="tiny", sharing="all", tasks=("label", "birads"), freeze_cnn=False, dropout=0.1)
    config.loss = ConfigDict({"class_weights": True})
    data = config.data
    data.source, data.classes = "phantom_mammo", ("non-malignant", "malignant")
    data.size, data.num_cases, data.phantom_size = 64, 48, 64
    data.birads_subset, data.keep_label, data.crop_breast = (1, 3, 5), False, False
    data.augment = ConfigDict({"degrees": 10.0, "translate": 0.05, "scale": 0.05, "hflip": 0.5, "flip_views": False})
    data.test_fraction, data.val_fraction = 0.25, 0.25
    config.batch_size, config.epochs = 8, 2
    config.optimizer.learning_rate = 3e-3
    config.plateau.update(monitor="val/auc", mode="max")
    config.monitor = "val/auc"
    return config
