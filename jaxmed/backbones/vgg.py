"""VGG (Simonyan and Zisserman 2015) with and without batch norm, module names as in torchvision."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import BatchNorm, Conv, Linear, adaptive_avg_pool, dropout, max_pool, normal, zeros
from jaxmed.registry import register

WIDTHS = (64, 128, 256, 512, 512)


class ReLU(nnx.Module):
    """max(x, 0); an entry of its own so that list positions are torchvision's."""

    def __call__(self, x: Array, train: bool = False) -> Array:
        return jax.nn.relu(x)


class MaxPool(nnx.Module):
    """2x2 maximum, stride 2."""

    def __call__(self, x: Array, train: bool = False) -> Array:
        return max_pool(x, 2, 2)


class Features(nnx.List):
    """The convolutional part: `features.0`, `features.2`, ... are its convolutions; called, it gives the four maps."""

    def __call__(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Before pool3, pool4 and pool5, and after pool5 (strides 4, 8, 16, 32), as timm's features_only."""
        before, after = self.around_pools(image, train)
        return [*before[2:], after[-1]]

    def around_pools(self, image: Float[Array, "b h w c"], train: bool = False) -> tuple[Maps, Maps]:
        """(inputs, outputs) of the five pools."""
        before, after, x = [], [], image
        for layer in self:
            y = layer(x) if isinstance(layer, Conv) else layer(x, train)
            if isinstance(layer, MaxPool):
                before.append(x)
                after.append(y)
            x = y
        return before, after


@register("vgg11", depths=(1, 1, 2, 2, 2))
@register("vgg13", depths=(2, 2, 2, 2, 2))
@register("vgg16", depths=(2, 2, 3, 3, 3))
@register("vgg19", depths=(2, 2, 4, 4, 4))
@register("vgg11_bn", depths=(1, 1, 2, 2, 2), batch_norm=True)
@register("vgg13_bn", depths=(2, 2, 2, 2, 2), batch_norm=True)
@register("vgg16_bn", depths=(2, 2, 3, 3, 3), batch_norm=True)
@register("vgg19_bn", depths=(2, 2, 4, 4, 4), batch_norm=True)
class VGG(Backbone):
    """`depths` 3x3 convolutions before each of five pools, then 4096, 4096, num_classes with dropout.

    Maps other than 7x7 are averaged to 7x7 before the head, as torchvision does.
    """

    tap_channels = WIDTHS[1:]

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (2, 2, 3, 3, 3), batch_norm: bool = False,
        in_channels: int = 3, dropout: float = 0.5, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.rate = num_classes, dropout
        layers: list[nnx.Module] = []
        for width, depth in zip(WIDTHS, depths, strict=True):
            for _ in range(depth):
                layers.append(Conv(in_channels, width, 3, padding=1, bias_init=zeros, dtype=dtype, rngs=rngs))
                layers += [BatchNorm(width, dtype=dtype), ReLU()] if batch_norm else [ReLU()]
                in_channels = width
            layers.append(MaxPool())
        self.features = Features(layers)
        if num_classes is not None:
            sizes = [(512 * 7 * 7, 4096), (4096, 4096), (4096, num_classes)]
            options = dict(kernel_init=normal(0.01), bias_init=zeros, dtype=dtype, rngs=rngs)
            self.classifier = nnx.Dict({str(3 * i): Linear(*size, **options) for i, size in enumerate(sizes)})

    def csa_taps(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of pool2 to pool5 (strides 4, 8, 16, 32; 128, 256, 512, 512 channels)."""
        return self.features.around_pools(image, train)[1][1:]

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """The 4096 numbers before the last layer, or the mean of the last map where there is no head."""
        last = self.features(image, train)[-1]
        if self.num_classes is None:
            return jnp.mean(last, (1, 2), dtype=jnp.float32)
        grid = adaptive_avg_pool(last, 7)
        x = jnp.transpose(grid, (0, 3, 1, 2)).reshape(grid.shape[0], -1)  # torch flattens channels first
        for name in ("0", "3"):
            x = dropout(jax.nn.relu(self.classifier[name](x)), self.rate, train, rngs)
        return x.astype(jnp.float32)

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The last linear layer."""
        return self.classifier["6"](features)
