"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017), module names as in timm and torchvision."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import BatchNorm, Conv, Linear, computed_once, global_avg_pool, max_pool
from jaxmed.registry import register


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, *, dtype, rngs: nnx.Rngs):
        shape = dict(bias=False, dtype=dtype, rngs=rngs)
        self.conv1 = Conv(in_channels, channels, 3, stride=stride, padding=1, **shape)
        self.bn1 = BatchNorm(channels, dtype=dtype)
        self.conv2 = Conv(channels, channels, 3, padding=1, **shape)
        self.bn2 = BatchNorm(channels, dtype=dtype)
        self.downsample = shortcut(in_channels, channels, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        y = jax.nn.relu(self.bn1(self.conv1(x), train))
        y = self.bn2(self.conv2(y), train)
        return computed_once(jax.nn.relu(y + apply_shortcut(self.downsample, x, train)))


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 around a shortcut; the stride sits in the 3x3 (ResNet v1.5, as in torch).

    ResNeXt: the 3x3 has `groups` groups that are `group_width` channels wide in the first stage.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, groups: int = 1, group_width: int = 64, dtype, rngs: nnx.Rngs
    ):
        shape = dict(bias=False, dtype=dtype, rngs=rngs)
        width = channels * group_width // 64 * groups
        self.conv1 = Conv(in_channels, width, 1, **shape)
        self.bn1 = BatchNorm(width, dtype=dtype)
        self.conv2 = Conv(width, width, 3, stride=stride, padding=1, groups=groups, **shape)
        self.bn2 = BatchNorm(width, dtype=dtype)
        self.conv3 = Conv(width, channels * 4, 1, **shape)
        self.bn3 = BatchNorm(channels * 4, dtype=dtype)
        self.downsample = shortcut(in_channels, channels * 4, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        y = jax.nn.relu(self.bn1(self.conv1(x), train))
        y = jax.nn.relu(self.bn2(self.conv2(y), train))
        y = self.bn3(self.conv3(y), train)
        return computed_once(jax.nn.relu(y + apply_shortcut(self.downsample, x, train)))


def shortcut(in_channels: int, channels: int, stride: int, *, dtype, rngs: nnx.Rngs) -> nnx.List:
    """[1x1 convolution, norm] where the shape changes, else empty."""
    if stride == 1 and in_channels == channels:
        return nnx.List([])
    conv = Conv(in_channels, channels, 1, stride=stride, bias=False, dtype=dtype, rngs=rngs)
    return nnx.List([conv, BatchNorm(channels, dtype=dtype)])


def apply_shortcut(layers: nnx.List, x: Array, train: bool) -> Array:
    """The identity for an empty list."""
    if not layers:
        return x
    conv, norm = layers
    return norm(conv(x), train)


@register("resnet18", block=BasicBlock, depths=(2, 2, 2, 2))
@register("resnet34", block=BasicBlock, depths=(3, 4, 6, 3))
@register("resnet50", block=Bottleneck, depths=(3, 4, 6, 3))
@register("resnet101", block=Bottleneck, depths=(3, 4, 23, 3))
@register("resnet152", block=Bottleneck, depths=(3, 8, 36, 3))
@register("resnext50_32x4d", block=Bottleneck, depths=(3, 4, 6, 3), groups=32, group_width=4)
@register("resnext101_32x4d", block=Bottleneck, depths=(3, 4, 23, 3), groups=32, group_width=4)
@register("resnext101_32x8d", block=Bottleneck, depths=(3, 4, 23, 3), groups=32, group_width=8)
@register("resnext101_64x4d", block=Bottleneck, depths=(3, 4, 23, 3), groups=64, group_width=4)
class ResNet(Backbone):
    """`depths` blocks per stage; stage k has 64 * 2^k channels times the block's expansion. `groups` makes it a ResNeXt.

    Fewer than four depths give the first stages alone (a stem for another network): `features` has as many maps, and
    `load_weights` ignores the published stages that are cut off.
    """

    def __init__(
        self, num_classes: int | None = 2, *, block: type = BasicBlock, depths: tuple[int, ...] = (2, 2, 2, 2),
        groups: int = 1, group_width: int = 64, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.num_classes = num_classes
        options = dict(dtype=dtype, rngs=rngs) | ({} if groups == 1 else dict(groups=groups, group_width=group_width))
        self.tap_channels = tuple(64 * 2**k * block.expansion for k in range(len(depths)))
        self.conv1 = Conv(in_channels, 64, 7, stride=2, padding=3, bias=False, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(64, dtype=dtype)
        widths = (64, *self.tap_channels)
        for k, depth in enumerate(depths):
            strides = [2 if i == 0 and k > 0 else 1 for i in range(depth)]
            blocks = [block(widths[k + (i > 0)], 64 * 2**k, stride, **options) for i, stride in enumerate(strides)]
            setattr(self, f"layer{k + 1}", nnx.List(blocks))
        if num_classes is not None:
            self.fc = Linear(widths[-1], num_classes, dtype=dtype, rngs=rngs)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of layer1 to layer4 (or to the last one there is)."""
        x = jax.nn.relu(self.bn1(self.conv1(image), train))
        x = max_pool(x, 3, 2, 1)
        maps = []
        for k in range(len(self.tap_channels)):
            for block in getattr(self, f"layer{k + 1}"):
                x = block(x, train)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the last stage."""
        return global_avg_pool(self.features(image, train)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.fc(features)
