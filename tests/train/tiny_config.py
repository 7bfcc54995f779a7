"""A run of seconds for tests: phantoms at 32 pixels, a two-layer encoder. `:single` is one network, `:experts` three."""

import jax
from flax import nnx

from jaxmed.backbones.backbone import Backbone
from jaxmed.config import base_config, parse_arg
from jaxmed.nn import BatchNorm, Conv, Linear, global_avg_pool
from jaxmed.registry import register


class TinyEncoder(Backbone):
    """Four convolutions; features [b, 16]."""

    def __init__(self, num_classes=2, *, in_channels=3, dtype="float32", rngs: nnx.Rngs):
        self.num_classes, self.tap_channels = num_classes, (8, 8, 16, 16)
        widths = (in_channels, *self.tap_channels)
        shape = dict(stride=2, padding=1, dtype=dtype, rngs=rngs)
        self.convs = nnx.List([Conv(widths[k], widths[k + 1], 3, **shape) for k in range(4)])
        self.norms = nnx.List([BatchNorm(width, dtype=dtype) for width in self.tap_channels])
        if num_classes is not None:
            self.fc = Linear(16, num_classes, dtype=dtype, rngs=rngs)

    def features(self, image, train=False, rngs=None):
        maps, x = [], image
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.relu(norm(conv(x), train))
            maps.append(x)
        return maps

    def pooled(self, image, train, rngs):
        return global_avg_pool(self.features(image, train)[-1])

    def classify(self, features, train, rngs):
        return self.fc(features)


try:
    register("tiny")(TinyEncoder)
except ValueError:  # a config file may be executed twice in one process
    pass


def get_config(arg=None):
    kind, _ = parse_arg(arg, "experts")
    config = base_config()
    config.name = f"tiny-{kind}"
    config.model.name = "tiny" if kind == "single" else "csa_moe"
    if kind == "experts":
        config.model.options.encoder = "tiny"
        config.model.options.experts = ("image", "core", "boundary")
    config.data.size, config.data.num_cases, config.data.phantom_size = 32, 96, 64
    config.batch_size, config.epochs = 16, 4
    config.optimizer.learning_rate = 3e-3
    return config
