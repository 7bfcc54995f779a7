"""EfficientNet (Tan and Le 2019, "Rethinking Model Scaling for Convolutional Neural Networks"), module names as in timm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import BatchNorm, Conv, DepthwiseConv, Linear, SqueezeExcite, add_branch, dropout, global_avg_pool, pad_same
from jaxmed.nn.drop_path import drop_path_rates
from jaxmed.registry import register

# Table 1: stages 2 to 8 of the paper are our blocks.0 to blocks.6
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSION = 6  # of all stages but the first
FEATURES = (1, 2, 4, 6)  # the last stages at strides 4, 8, 16 and 32
EXPANDED = (1, 2, 3, 5)  # stages whose first block widens a map before it halves it

# B0 to B4: Table 1 times 1, 1.1, 1.2, 1.4, 1.8 in depth (rounded up) and 1, 1, 1.1, 1.2, 1.4 in width (nearest multiple of 8);
# the channels are those of the stem, the seven stages and the head
DEPTHS = ((1, 2, 2, 3, 3, 4, 1), (2, 3, 3, 4, 4, 5, 2), (2, 3, 3, 4, 4, 5, 2), (2, 3, 3, 5, 5, 6, 2), (2, 4, 4, 6, 6, 8, 2))
DIMS = (
    (32, 16, 24, 40, 80, 112, 192, 320, 1280),
    (32, 16, 24, 40, 80, 112, 192, 320, 1280),
    (32, 16, 24, 48, 88, 120, 208, 352, 1408),
    (40, 24, 32, 48, 96, 136, 232, 384, 1536),
    (48, 24, 32, 56, 112, 160, 272, 448, 1792),
)
DROPOUT = (0.2, 0.2, 0.3, 0.3, 0.4)


def torch_size(n: int) -> dict[str, Any]:
    """Bn as trained in PyTorch: symmetric padding."""
    return dict(depths=DEPTHS[n], dims=DIMS[n], dropout=DROPOUT[n])


def tf_size(n: int) -> dict[str, Any]:
    """Bn as trained in TensorFlow, and in Keras: SAME padding and a larger epsilon."""
    return dict(torch_size(n), same_padding=True, eps=1e-3)


def lite_size(n: int) -> dict[str, Any]:
    """Lite-n: stem, first and last stage and head are not scaled."""
    depths, dims = (1, *DEPTHS[n][1:-1], 1), (32, *DIMS[n][1:-1], 1280)
    return dict(tf_size(n), depths=depths, dims=dims, dropout=min(DROPOUT[n], 0.3), lite=True)


@dataclass(frozen=True)
class Kind:
    """In what the published networks differ, apart from their size; makes the layers concerned."""

    same_padding: bool
    eps: float
    lite: bool
    dtype: jnp.dtype

    def act(self, x: Array) -> Array:
        """SiLU, or ReLU6 in the Lite networks, which were made for integer arithmetic."""
        return jax.nn.relu6(x) if self.lite else jax.nn.silu(x)

    def norm(self, channels: int) -> BatchNorm:
        """Batch normalisation with this kind's epsilon."""
        return BatchNorm(channels, eps=self.eps, dtype=self.dtype)

    def spatial(self, kernel: int, stride: int) -> dict[str, int]:
        """Stride and padding of a convolution; where SAME padding is uneven, `pad` does it."""
        return dict(stride=stride, padding=0 if self.same_padding and stride > 1 else kernel // 2)

    def pad(self, x: Array, conv: Conv | DepthwiseConv) -> Array:
        """The zeros that `conv` does not add itself; what is no batch of images is left to its error message."""
        if not self.same_padding or conv.stride == (1, 1) or x.ndim != 4:
            return x
        return pad_same(x, conv.kernel.get_value().shape[:2], conv.stride)


class Block(nnx.Module):
    """Widen (or not), depthwise convolution, squeeze-and-excitation, projection without activation; a shortcut where the
    shape stays. Two steps, so that the widened map can be looked at: y = block.project(x, block.expand(x))."""

    def _prepare(self, shape: tuple[int, int, int], width: int, rate: float, kind: Kind, rngs: nnx.Rngs) -> None:
        in_channels, channels, stride = shape
        self.kind, self.rate, self.residual = kind, rate, stride == 1 and in_channels == channels
        if not kind.lite:  # a quarter of the block's input, not of the widened map
            self.se = SqueezeExcite(width, in_channels // 4, act=jax.nn.silu, dtype=kind.dtype, rngs=rngs)

    def _narrow(self, x: Array, wide: Array, layers: Sequence[nnx.Module], train: bool, rngs: nnx.Rngs | None) -> Array:
        depthwise, norm, pointwise, last_norm = layers
        y = self.kind.act(norm(depthwise(self.kind.pad(wide, depthwise)), train))
        if hasattr(self, "se"):
            y = self.se(y)
        y = last_norm(pointwise(y), train)
        return add_branch(x, y, self.rate, train, rngs) if self.residual else y


class DepthwiseSeparable(Block):
    """The block of the first stage, which does not widen."""

    def __init__(self, shape: tuple[int, int, int], kernel: int, rate: float, kind: Kind, *, rngs: nnx.Rngs):
        in_channels, channels, stride = shape
        options = dict(bias=False, dtype=kind.dtype, rngs=rngs)
        self._prepare(shape, in_channels, rate, kind, rngs)
        self.conv_dw = DepthwiseConv(in_channels, kernel, **kind.spatial(kernel, stride), **options)
        self.bn1 = kind.norm(in_channels)
        self.conv_pw = Conv(in_channels, channels, 1, **options)
        self.bn2 = kind.norm(channels)

    def expand(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """The map as it is."""
        return x

    def project(self, x: Array, wide: Array, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h2 w2 c2"]:
        """The rest of the block."""
        return self._narrow(x, wide, (self.conv_dw, self.bn1, self.conv_pw, self.bn2), train, rngs)


class InvertedResidual(Block):
    """The block of all other stages, six times wider inside."""

    def __init__(self, shape: tuple[int, int, int], kernel: int, rate: float, kind: Kind, *, rngs: nnx.Rngs):
        in_channels, channels, stride = shape
        width, options = EXPANSION * in_channels, dict(bias=False, dtype=kind.dtype, rngs=rngs)
        self._prepare(shape, width, rate, kind, rngs)
        self.conv_pw = Conv(in_channels, width, 1, **options)
        self.bn1 = kind.norm(width)
        self.conv_dw = DepthwiseConv(width, kernel, **kind.spatial(kernel, stride), **options)
        self.bn2 = kind.norm(width)
        self.conv_pwl = Conv(width, channels, 1, **options)
        self.bn3 = kind.norm(channels)

    def expand(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c6"]:
        """The widened map, activated."""
        return self.kind.act(self.bn1(self.conv_pw(x), train))

    def project(self, x: Array, wide: Array, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h2 w2 c2"]:
        """The rest of the block."""
        return self._narrow(x, wide, (self.conv_dw, self.bn2, self.conv_pwl, self.bn3), train, rngs)


@register("efficientnet_b0", **torch_size(0))
@register("efficientnet_b1", **torch_size(1))
@register("efficientnet_b2", **torch_size(2))
@register("efficientnet_b3", **torch_size(3))
@register("efficientnet_b4", **torch_size(4))
@register("tf_efficientnet_b0", **tf_size(0))
@register("tf_efficientnet_b1", **tf_size(1))
@register("tf_efficientnet_b2", **tf_size(2))
@register("tf_efficientnet_b3", **tf_size(3))
@register("tf_efficientnet_b4", **tf_size(4))
@register("tf_efficientnet_lite0", **lite_size(0))
@register("tf_efficientnet_lite1", **lite_size(1))
@register("tf_efficientnet_lite2", **lite_size(2))
@register("tf_efficientnet_lite3", **lite_size(3))
@register("tf_efficientnet_lite4", **lite_size(4))
class EfficientNet(Backbone):
    """`depths` blocks in each of seven stages; `dims` are the channels of stem, stages and head.

    `same_padding` pads as TensorFlow does, `lite` leaves squeeze-and-excitation out and takes ReLU6.
    `expanded_channels` are those of the five maps of `taps`.
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: Sequence[int] = DEPTHS[0], dims: Sequence[int] = DIMS[0],
        same_padding: bool = False, eps: float = 1e-5, lite: bool = False, dropout: float = 0.2, drop_path: float = 0.0,
        in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        stem, *stages, head = dims
        kind = Kind(same_padding, eps, lite, jnp.dtype(dtype))
        options = dict(bias=False, dtype=dtype, rngs=rngs)
        self.num_classes, self.rate, self.kind = num_classes, dropout, kind
        self.tap_channels = tuple(stages[s] for s in FEATURES)
        self.expanded_channels = (*(EXPANSION * stages[s - 1] for s in EXPANDED), head)
        self.conv_stem = Conv(in_channels, stem, 3, **kind.spatial(3, 2), **options)
        self.bn1 = kind.norm(stem)
        self.blocks = _stages(dims, depths, drop_path, kind, rngs)
        self.conv_head = Conv(stages[-1], head, 1, **options)
        self.bn2 = kind.norm(head)
        if num_classes is not None:  # torch's default: the published +-1/sqrt(classes) is +-0.7 for two classes
            self.classifier = Linear(head, num_classes, dtype=dtype, rngs=rngs)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the second, third, fifth and seventh stage."""
        outputs, _ = self._run(image, train, rngs)
        return [outputs[s] for s in FEATURES]

    def taps(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Five maps with strides 2, 4, 8, 16, 32 for a decoder: the widened maps before each halving, and the head's.

        Keras calls them block2a, block3a, block4a and block6a_expand_activation and top_activation.
        """
        outputs, expanded = self._run(image, train, rngs)
        return [*(expanded[s] for s in EXPANDED), self._head(outputs[-1], train)]

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the head's map."""
        outputs, _ = self._run(image, train, rngs)
        return global_avg_pool(self._head(outputs[-1], train))

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """Dropout and the linear layer."""
        return self.classifier(dropout(features, self.rate, train, rngs))

    def _run(self, image: Array, train: bool, rngs: nnx.Rngs | None) -> tuple[Maps, Maps]:
        """Of every stage the output, and what its first block widens its input to."""
        x = self.kind.act(self.bn1(self.conv_stem(self.kind.pad(image, self.conv_stem)), train))
        outputs, expanded = [], []
        for stage in self.blocks:
            for i, block in enumerate(stage):
                wide = block.expand(x, train)
                x = block.project(x, wide, train, rngs)
                expanded += [wide] if i == 0 else []
            outputs.append(x)
        return outputs, expanded

    def _head(self, x: Array, train: bool) -> Array:
        return self.kind.act(self.bn2(self.conv_head(x), train))


def _stages(dims: Sequence[int], depths: Sequence[int], rate: float, kind: Kind, rngs: nnx.Rngs) -> nnx.List:
    """All blocks. Block k of n is dropped with k / n of the rate: unlike elsewhere, the last one stays below the full rate."""
    rates = drop_path_rates(rate * (1 - 1 / sum(depths)), depths)

    def block(stage: int, i: int) -> Block:
        make = InvertedResidual if stage else DepthwiseSeparable
        shape = (dims[stage + (i > 0)], dims[stage + 1], 1 if i else STRIDES[stage])
        return make(shape, KERNELS[stage], rates[stage][i], kind, rngs=rngs)

    return nnx.List([nnx.List([block(stage, i) for i in range(depth)]) for stage, depth in enumerate(depths)])
