"""Convolution, batch norm and ReLU, in either order."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv, Pair, pair
from jaxmed.nn.init import zeros
from jaxmed.nn.norm import BatchNorm


class ConvNorm(nnx.Module):
    """`conv`, `bn`, ReLU; with `relu_first` conv, ReLU, bn. Zero padding keeps the map's size at stride 1 (odd kernels).

    `slope` is that of the ReLU below zero (a leaky one).
    """

    def __init__(
        self, in_channels: int, channels: int, kernel_size: Pair = 3, *, stride: int = 1, dilation: int = 1,
        bias: bool = False, relu_first: bool = False, slope: float = 0.0, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.relu_first, self.slope = relu_first, slope
        padding = tuple(dilation * (k // 2) for k in pair(kernel_size))
        options = dict(stride=stride, padding=padding, dilation=dilation, bias=bias, bias_init=zeros, dtype=dtype, rngs=rngs)
        self.conv = Conv(in_channels, channels, kernel_size, **options)
        self.bn = BatchNorm(channels, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h2 w2 o"]:
        x = self.conv(x)
        return self.bn(self.relu(x), train) if self.relu_first else self.relu(self.bn(x, train))

    def relu(self, x: Float[Array, "b h w o"]) -> Float[Array, "b h w o"]:
        """max(x, slope * x)."""
        return jax.nn.leaky_relu(x, self.slope) if self.slope else jax.nn.relu(x)
