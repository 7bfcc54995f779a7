"""The two convolutions of a U-Net's level."""

from collections.abc import Iterable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.pool import max_pool


class DoubleConv(nnx.Module):
    """Two 3x3 convolutions with batch norm and ReLU (see ConvNorm), `middle` channels between them (as many as come out where
    None); the first one has the stride.
    """

    def __init__(
        self, in_channels: int, channels: int, *, middle: int | None = None, stride: int = 1, bias: bool = False,
        slope: float = 0.0, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        middle, options = middle or channels, dict(bias=bias, slope=slope, dtype=dtype, rngs=rngs)
        self.conv1 = ConvNorm(in_channels, middle, stride=stride, **options)
        self.conv2 = ConvNorm(middle, channels, **options)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h2 w2 o"]:
        return self.conv2(self.conv1(x, train), train)


def pyramid(
    blocks: Iterable[nnx.Module], image: Float[Array, "b h w c"], train: bool = False
) -> list[Float[Array, "b h2 w2 _"]]:
    """The map of each block, the finest first; each works on the last one's map, halved by 2x2 maxima."""
    maps: list[Array] = []
    for block in blocks:
        maps.append(block(max_pool(maps[-1], 2, 2) if maps else image, train))
    return maps
