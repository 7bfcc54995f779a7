"""A two-view run of seconds for tests: phantoms of 64 x 32 pixels through pruned Swins of two blocks, or `:encoder=tiny`."""

from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from tests.train import tiny_config  # noqa: F401  registers the encoder

SWIN = {"depths": (1, 1), "dims": (8, 16), "num_heads": (1, 2), "window_size": 4, "drop_path": 0.0, "frozen_stages": 1}


def get_config(arg=None):
    _, options = parse_arg(arg, "pairs")
    config = base_config()
    config.name, config.task = "tiny-pairs", "two_views"
    config.model.name = options.get("encoder", "dv_swin_pruned")
    if config.model.name == "dv_swin_pruned":
        config.model.options.update(SWIN | {"prune_ratio": 0.5})
    config.loss = ConfigDict({"class_weights": True})
    data = config.data
    data.source, data.classes = "phantom_pairs", ("non-malignant", "malignant")
    with data.ignore_type():
        data.size = (64, 32)
    data.num_cases, data.phantom_size, data.crop_breast, data.pad = 32, 64, False, False
    data.augment = ConfigDict({"hflip": 0.0})
    data.test_fraction, data.val_fraction = 0.25, 0.25
    config.batch_size, config.epochs, config.prune_warmup_epochs = 8, 2, 1
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05)
    config.optimizer.update(weight_decay=0.05, decay_all=False, clip_norm=1.0)
    config.optimizer.factors = ConfigDict({"cc": 0.2, "mlo": 0.2} if config.model.name == "dv_swin_pruned" else {})
    config.monitor, config.cv.folds = "val/auc", 2
    return config
