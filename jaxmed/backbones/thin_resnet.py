"""The thin ResNet-22 that looks at whole mammograms (Wu et al. 2020; the global network of GMIC)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import BatchNorm, Conv, computed_once, global_max_pool, max_pool

WIDTHS = (16, 32, 64, 128, 256)


class PreActivationBlock(nnx.Module):
    """Norm and ReLU stand before each of the two 3x3 convolutions, and nothing behind the sum (He et al. 2016b).

    project: the shortcut is a 1x1 convolution of the activated input; otherwise it is the input itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, project: bool, *, dtype, rngs: nnx.Rngs):
        shape = dict(bias=False, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(in_channels, dtype=dtype)
        self.conv1 = Conv(in_channels, channels, 3, stride=stride, padding=1, **shape)
        self.bn2 = BatchNorm(channels, dtype=dtype)
        self.conv2 = Conv(channels, channels, 3, padding=1, **shape)
        self.downsample = nnx.List([Conv(in_channels, channels, 1, stride=stride, **shape)] if project else [])

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 c2"]:
        active = jax.nn.relu(self.bn1(x, train))
        y = self.conv2(jax.nn.relu(self.bn2(self.conv1(active), train)))
        return computed_once(y + (self.downsample[0](active) if self.downsample else x))


class ThinResNet(Backbone):
    """Five groups of two blocks with 16 to 256 channels; the first block of every group has a projected shortcut.

    Maps have strides 4, 8, 16, 32, 64 and no head follows. The stem (7x7 / 2, then a 3x3 / 2 maximum without padding) has no
    norm. Sizes that are multiples of 64 give maps of size / 64; others the next smaller or larger number.
    """

    num_classes = None
    tap_channels = WIDTHS

    def __init__(self, *, in_channels: int = 1, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        options = dict(dtype=dtype, rngs=rngs)
        self.first_conv = Conv(in_channels, WIDTHS[0], 7, stride=2, padding=3, bias=False, **options)
        self.layer_list = nnx.List([])
        for k, (before, width) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)):
            first = PreActivationBlock(before, width, 2 if k else 1, True, **options)
            self.layer_list.append(nnx.List([first, PreActivationBlock(width, width, 1, False, **options)]))
        self.final_bn = BatchNorm(WIDTHS[-1], dtype=dtype)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the five groups, the last one behind the final norm and ReLU."""
        x, maps = max_pool(self.first_conv(image), 3, 2), []
        for group in self.layer_list:
            for block in group:
                x = block(x, train)
            maps.append(x)
        return [*maps[:-1], jax.nn.relu(self.final_bn(x, train))]

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Maximum of the last map, float32."""
        return global_max_pool(self.features(image, train, rngs)[-1])
