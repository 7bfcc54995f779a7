"""MobileNetV2 (Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks"), module names as in torchvision."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import BatchNorm, Conv, DepthwiseConv, Linear, computed_once, dropout, global_avg_pool, normal, zeros
from jaxmed.registry import register

# expansion, channels, blocks, stride of the first block (Table 2)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
HEAD = 1280


class ConvNorm(nnx.List):
    """[convolution, norm], then ReLU6."""

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        conv, norm = self
        return jax.nn.relu6(norm(conv(x), train))


def dense(in_channels: int, channels: int, kernel: int, stride: int = 1, *, dtype, rngs: nnx.Rngs) -> ConvNorm:
    """Convolution, norm, ReLU6."""
    pad = kernel // 2
    conv = Conv(in_channels, channels, kernel, stride=stride, padding=pad, bias=False, dtype=dtype, rngs=rngs)
    return ConvNorm([conv, BatchNorm(channels, dtype=dtype)])


def depthwise(channels: int, stride: int, *, dtype, rngs: nnx.Rngs) -> ConvNorm:
    """3x3 depthwise convolution, norm, ReLU6."""
    conv = DepthwiseConv(channels, 3, stride=stride, padding=1, bias=False, dtype=dtype, rngs=rngs)
    return ConvNorm([conv, BatchNorm(channels, dtype=dtype)])


class InvertedResidual(nnx.Module):
    """Widen by `expansion`, 3x3 depthwise, project without activation; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int, *, dtype, rngs: nnx.Rngs):
        self.residual = stride == 1 and in_channels == channels
        width, shape = in_channels * expansion, dict(dtype=dtype, rngs=rngs)
        widen = [dense(in_channels, width, 1, **shape)] if expansion > 1 else []
        project = [Conv(width, channels, 1, bias=False, **shape), BatchNorm(channels, dtype=dtype)]
        self.conv = nnx.List([*widen, depthwise(width, stride, **shape), *project])

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        *wide, project, norm = self.conv
        y = x
        for layer in wide:
            y = layer(y, train)
        y = norm(project(y), train)
        return computed_once(x + y) if self.residual else y


class Features(nnx.List):
    """features.0 (stem) to features.18 (1280-channel head); called, it gives the four maps."""

    def __call__(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """The last blocks with 24, 32, 96 and 320 channels (strides 4, 8, 16, 32), as timm's features_only."""
        outputs = self.outputs(image, train, len(self) - 1)
        return [outputs[3], outputs[6], outputs[13], outputs[17]]

    def outputs(self, image: Float[Array, "b h w c"], train: bool, count: int) -> Maps:
        """The outputs of the first `count` entries."""
        outputs, x = [], image
        for layer in list(self)[:count]:
            x = layer(x, train)
            outputs.append(x)
        return outputs


@register("mobilenetv2_100")
class MobileNetV2(Backbone):
    """Width 1.0: 32-channel stem, 17 inverted residuals, 1280-channel head, dropout, linear."""

    tap_channels = (24, 32, 96, HEAD)

    def __init__(
        self, num_classes: int | None = 2, *, in_channels: int = 3, dropout: float = 0.2,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.rate = num_classes, dropout
        shape = dict(dtype=dtype, rngs=rngs)
        layers, width = [dense(in_channels, 32, 3, 2, **shape)], 32
        for expansion, channels, depth, stride in STAGES:
            for i in range(depth):
                layers.append(InvertedResidual(width, channels, stride if i == 0 else 1, expansion, **shape))
                width = channels
        self.features = Features([*layers, dense(width, HEAD, 1, **shape)])
        if num_classes is not None:
            head = Linear(HEAD, num_classes, kernel_init=normal(0.01), bias_init=zeros, **shape)
            self.classifier = nnx.Dict({"1": head})

    def csa_taps(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """The last blocks with 24, 32 and 96 channels and the 1280-channel head (strides 4, 8, 16, 32)."""
        outputs = self.features.outputs(image, train, len(self.features))
        return [outputs[3], outputs[6], outputs[13], outputs[18]]

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the 1280-channel map."""
        return global_avg_pool(self.csa_taps(image, train)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """Dropout and the linear head."""
        return self.classifier["1"](dropout(features, self.rate, train, rngs))
