"""Partial decoder: the three deeper maps of an encoder to one coarse mask (Wu, Su, Huang, CVPR 2019)."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.init import zeros
from jaxmed.ops.resize import double

up = functools.partial(double, align_corners=True)


class PartialDecoder(nnx.Module):
    """Deeper maps multiply shallower ones, then all are joined from the deepest up; every 3x3 is a ConvNorm(relu_first)."""

    def __init__(
        self, channels: int, mask_channels: int = 1, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        def conv(n: int) -> ConvNorm:
            return ConvNorm(n * channels, n * channels, relu_first=True, dtype=dtype, rngs=rngs)

        self.conv_upsample = nnx.List([conv(n) for n in (1, 1, 1, 1, 2)])
        self.conv_concat2, self.conv_concat3, self.conv4 = conv(2), conv(3), conv(3)
        self.conv5 = Conv(3 * channels, mask_channels, 1, bias_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(
        self, deep: Float[Array, "b h w c"], middle: Float[Array, "b h2 w2 c"], shallow: Float[Array, "b h4 w4 c"],
        train: bool = False,
    ) -> Float[Array, "b h4 w4 m"]:
        """Each map has twice the side of the one before it."""
        one, two, three, four, five = (lambda x, conv=conv: conv(up(x), train) for conv in self.conv_upsample)
        shallow = two(up(deep)) * three(middle) * shallow
        middle = self.conv_concat2(jnp.concatenate([one(deep) * middle, four(deep)], -1), train)
        shallow = self.conv_concat3(jnp.concatenate([shallow, five(middle)], -1), train)
        return self.conv5(self.conv4(shallow, train))
