"""Convolution, batch norm and ReLU, in either order."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv, Pair, pair
from jaxmed.nn.init import zeros
from jaxmed.nn.norm import BatchNorm


class ConvNorm(nnx.Module):
    """`conv`, `bn`, ReLU; with `relu_first` conv, ReLU, bn. Stride 1; zero padding keeps the map's size (odd kernels)."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: Pair = 3, *, dilation: int = 1, bias: bool = False,
        relu_first: bool = False, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.relu_first = relu_first
        padding = tuple(dilation * (k // 2) for k in pair(kernel_size))
        options = dict(padding=padding, dilation=dilation, bias=bias, bias_init=zeros, dtype=dtype, rngs=rngs)
        self.conv = Conv(in_channels, channels, kernel_size, **options)
        self.bn = BatchNorm(channels, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h w o"]:
        x = self.conv(x)
        return self.bn(jax.nn.relu(x), train) if self.relu_first else jax.nn.relu(self.bn(x, train))
