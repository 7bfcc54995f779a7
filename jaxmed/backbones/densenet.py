"""DenseNet (Huang et al. 2017, "Densely Connected Convolutional Networks"), module names as in timm and torchvision."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import BatchNorm, Conv, Linear, avg_pool, computed_once, global_avg_pool, kaiming_normal, max_pool, zeros
from jaxmed.registry import register


class DenseLayer(nnx.Module):
    """norm, ReLU, 1x1 to 4 * growth, norm, ReLU, 3x3 to growth."""

    def __init__(self, in_channels: int, growth: int, *, dtype, rngs: nnx.Rngs):
        options = dict(bias=False, kernel_init=kaiming_normal("fan_in"), dtype=dtype, rngs=rngs)
        self.norm1 = BatchNorm(in_channels, dtype=dtype)
        self.conv1 = Conv(in_channels, 4 * growth, 1, **options)
        self.norm2 = BatchNorm(4 * growth, dtype=dtype)
        self.conv2 = Conv(4 * growth, growth, 3, padding=1, **options)

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w g"]:
        y = self.conv1(jax.nn.relu(self.norm1(x, train)))
        return self.conv2(jax.nn.relu(self.norm2(y, train)))


class DenseBlock(nnx.Module):
    """`depth` layers, each looking at the input and at the outputs of all layers before it."""

    def __init__(self, in_channels: int, depth: int, growth: int, *, dtype, rngs: nnx.Rngs):
        self.depth = depth
        for i in range(depth):
            setattr(self, f"denselayer{i + 1}", DenseLayer(in_channels + i * growth, growth, dtype=dtype, rngs=rngs))

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w c2"]:
        for i in range(self.depth):
            x = computed_once(jnp.concatenate([x, getattr(self, f"denselayer{i + 1}")(x, train)], -1))
        return x


class Transition(nnx.Module):
    """norm, ReLU, 1x1 to half the channels, 2x2 mean."""

    def __init__(self, in_channels: int, *, dtype, rngs: nnx.Rngs):
        self.norm = BatchNorm(in_channels, dtype=dtype)
        init = kaiming_normal("fan_in")
        self.conv = Conv(in_channels, in_channels // 2, 1, bias=False, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        return avg_pool(self.conv(jax.nn.relu(self.norm(x, train))), 2, 2)


class Features(nnx.Module):
    """Everything but the classifier; called, it gives the four maps."""

    def __init__(self, depths: tuple[int, ...], growth: int, in_channels: int, *, dtype, rngs: nnx.Rngs):
        init, width = kaiming_normal("fan_in"), 2 * growth
        self.conv0 = Conv(
            in_channels, width, 7, stride=2, padding=3, bias=False, kernel_init=init, dtype=dtype, rngs=rngs
        )
        self.norm0 = BatchNorm(width, dtype=dtype)
        taps = []
        for k, depth in enumerate(depths, 1):
            setattr(self, f"denseblock{k}", DenseBlock(width, depth, growth, dtype=dtype, rngs=rngs))
            width += depth * growth
            if k < 4:
                setattr(self, f"transition{k}", Transition(width, dtype=dtype, rngs=rngs))
                width //= 2
            taps.append(width)
        self.norm5 = BatchNorm(width, dtype=dtype)
        self.tap_channels = tuple(taps)

    def __call__(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of denseblock1 to denseblock3 and the final map (strides 4, 8, 16, 32), as timm's features_only."""
        blocks, transitions = self.stages(image, train)
        return [*blocks[:3], transitions[3]]

    def stages(self, image: Float[Array, "b h w c"], train: bool) -> tuple[Maps, Maps]:
        """(outputs of the four blocks, outputs of what follows each: transition1 to 3, norm5 with its ReLU)."""
        x = max_pool(jax.nn.relu(self.norm0(self.conv0(image), train)), 3, 2, 1)
        blocks, after = [], []
        for k in range(1, 5):
            x = getattr(self, f"denseblock{k}")(x, train)
            blocks.append(x)
            x = getattr(self, f"transition{k}")(x, train) if k < 4 else jax.nn.relu(self.norm5(x, train))
            after.append(x)
        return blocks, after


@register("densenet121", depths=(6, 12, 24, 16))
@register("densenet161", depths=(6, 12, 36, 24), growth=48)
@register("densenet169", depths=(6, 12, 32, 32))
@register("densenet201", depths=(6, 12, 48, 32))
class DenseNet(Backbone):
    """`depths` layers per block, each adding `growth` channels."""

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32,
        in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes = num_classes
        self.features = Features(depths, growth, in_channels, dtype=dtype, rngs=rngs)
        self.tap_channels = self.features.tap_channels
        if num_classes is not None:
            self.classifier = Linear(self.tap_channels[-1], num_classes, bias_init=zeros, dtype=dtype, rngs=rngs)

    def csa_taps(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of transition1 to transition3 and of norm5 (strides 8, 16, 32, 32).

        norm5 comes with the ReLU that follows it in the network's own forward pass (and in timm's norm5).
        """
        return self.features.stages(image, train)[1]

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the final map."""
        return global_avg_pool(self.features(image, train)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.classifier(features)
