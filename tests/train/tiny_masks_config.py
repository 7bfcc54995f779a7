"""A run of seconds for tests: masks and classes of phantoms at 32 pixels from two convolutions."""

import jax
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from jaxmed.data.augment_masks import DEFAULT
from jaxmed.nn import Conv, Linear, global_avg_pool
from jaxmed.registry import register


class TinyMasks(nnx.Module):
    """`upa` comes from the picture alone: enough to see whose row it is in."""

    input_names, frozen, roles = ("image",), (), {}

    def __init__(self, num_classes=2, *, mask_channels=1, width=8, dtype="float32", rngs: nnx.Rngs):
        self.num_classes = num_classes
        self.conv = Conv(3, width, 5, padding=2, dtype=dtype, rngs=rngs)
        self.out = Conv(width, mask_channels, 3, padding=1, dtype=dtype, rngs=rngs)
        if num_classes is not None:
            self.head = Linear(width, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, image, train=False, aux=False, rngs=None):
        x = jax.nn.relu(self.conv(image))
        out = {"mask_logits": self.out(x)}
        if self.num_classes is not None:
            features = global_avg_pool(x)
            out |= {"logits": self.head(features), "features": features, "upa": jax.nn.softmax(features.reshape(-1, 4, 2))}
        return out


try:
    register("tiny_masks")(TinyMasks)
except ValueError:  # a config file may be executed twice in one process
    pass


def get_config(arg=None):
    """`:masks` has no class head."""
    kind, _ = parse_arg(arg, "both")
    config = base_config()
    config.name, config.task = f"tiny-{kind}", "segmentation"
    config.model.name = "tiny_masks"
    if kind == "masks":
        config.loss = ConfigDict({"classification": 0.0})
    config.data.size, config.data.num_cases, config.data.phantom_size = 32, 64, 48
    config.data.augmentation, config.data.augment = "masks", ConfigDict(DEFAULT)
    config.monitor = "val/score"
    config.batch_size, config.epochs = 16, 3
    config.optimizer.learning_rate = 1e-2
    return config
