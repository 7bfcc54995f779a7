"""The ResNet of hybrid Vision Transformers: standardised kernels and group norms (Kolesnikov et al. 2020, "Big Transfer")."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn import computed_once, max_pool
from jaxmed.nn.group_norm import GroupNorm
from jaxmed.nn.standard_conv import StandardConv

GROUPS, EPS = 32, 1e-6
PROJECTION_EPS = 1e-5


class Unit(nnx.Module):
    """1x1, 3x3 (with the stride), 1x1 around a shortcut, which is a projection with instance norm where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, dtype, rngs: nnx.Rngs):
        width, options = channels // 4, dict(bias=False, dtype=dtype, rngs=rngs)
        self.conv1 = StandardConv(in_channels, width, 1, **options)
        self.gn1 = GroupNorm(width, GROUPS, eps=EPS, dtype=dtype)
        self.conv2 = StandardConv(width, width, 3, stride=stride, padding=1, **options)
        self.gn2 = GroupNorm(width, GROUPS, eps=EPS, dtype=dtype)
        self.conv3 = StandardConv(width, channels, 1, **options)
        self.gn3 = GroupNorm(channels, GROUPS, eps=EPS, dtype=dtype)
        if in_channels != channels or stride > 1:
            self.downsample = StandardConv(in_channels, channels, 1, stride=stride, **options)
            self.gn_proj = GroupNorm(channels, channels, eps=PROJECTION_EPS, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu(self.gn1(self.conv1(x)))
        y = jax.nn.relu(self.gn2(self.conv2(y)))
        y = self.gn3(self.conv3(y))
        return computed_once(jax.nn.relu(y + (self.gn_proj(self.downsample(x)) if hasattr(self, "downsample") else x)))


class ResNetV2(nnx.Module):
    """A 7x7 stem of `base_width` channels and three stages of `depths` units, 4, 8 and 16 times as wide.

    maps(image) -> stem (stride 2), stages 1 to 3 (strides 4, 8, 16). The stem's 3x3 maxima have no padding, so stage 1 lacks a
    row and a column; its map is returned with zeros there, as TransUNet's decoder takes it.
    """

    def __init__(
        self, *, base_width: int = 64, depths: Sequence[int] = (3, 4, 9), in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        stem = StandardConv(in_channels, base_width, 7, stride=2, padding=3, bias=False, **shape)
        self.root = nnx.Dict({"conv": stem, "gn": GroupNorm(base_width, GROUPS, eps=EPS, dtype=dtype)})
        widths = [base_width, *(base_width * 4 * 2**k for k in range(len(depths)))]
        self.channels = tuple(widths)
        self.stages = nnx.List([
            nnx.List([
                Unit(widths[k + (i > 0)], widths[k + 1], 2 if k > 0 and i == 0 else 1, **shape) for i in range(depth)
            ])
            for k, depth in enumerate(depths)
        ])

    def maps(self, image: Float[Array, "b h w c"]) -> list[Float[Array, "b h2 w2 _"]]:
        """Stem and stages, the finest first."""
        stem = jax.nn.relu(self.root["gn"](self.root["conv"](image)))
        x, maps = max_pool(stem, 3, 2), [stem]
        for k, stage in enumerate(self.stages):
            for unit in stage:
                x = unit(x)
            size = [n // (4 << k) for n in image.shape[1:3]]
            maps.append(jnp.pad(x, ((0, 0), *((0, n - m) for n, m in zip(size, x.shape[1:3], strict=True)), (0, 0))))
        return maps
