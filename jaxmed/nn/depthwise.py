"""Depthwise convolution, one function that lowers by platform."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Pair, conv2d, pair
from jaxmed.nn.init import Initializer, kaiming_normal, torch_uniform


def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], stride: Pair = 1, padding: Pair = 0
) -> Float[Array, "b h2 w2 c"]:
    """Each channel with its own kh x kw kernel; zero padding as torch counts it."""
    shape = dict(stride=pair(stride), padding=pair(padding))
    return jax.lax.platform_dependent(
        x, kernel, cpu=functools.partial(shifted_depthwise, **shape), default=functools.partial(lax_depthwise, **shape)
    )


def lax_depthwise(x: Array, kernel: Array, stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """The grouped convolution of XLA (cuDNN on GPU)."""
    return conv2d(x, kernel, stride, padding, groups=x.shape[-1])


def shifted_depthwise(x: Array, kernel: Array, stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """Sum over the kh*kw taps of a shifted slice of `x` times the tap."""
    (top, left), (kh, kw) = padding, kernel.shape[:2]
    x = jnp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], (kh, kw), stride, strict=True)]
    taps = [(i, j) for i in range(kh) for j in range(kw)]
    return sum(_slice(x, i, j, size, stride) * kernel[i, j].reshape(1, 1, 1, -1) for i, j in taps)


def _slice(x: Array, i: int, j: int, size: list[int], stride: tuple[int, int]) -> Array:
    """Every `stride`-th row from i and column from j, `size` of them."""
    stop = [start + (n - 1) * s + 1 for start, n, s in zip((i, j), size, stride, strict=True)]
    return jax.lax.slice(x, (0, i, j, 0), (x.shape[0], *stop, x.shape[3]), (1, *stride, 1))


class DepthwiseConv(nnx.Module):
    """Depthwise convolution, kernel [kh, kw, 1, channels], optional bias; parameters float32, computes in `dtype`."""

    def __init__(
        self, channels: int, kernel_size: Pair, *, stride: Pair = 1, padding: Pair = 0, bias: bool = True,
        kernel_init: Initializer | None = None, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.stride, self.padding, self.dtype = pair(stride), pair(padding), jnp.dtype(dtype)
        shape = (*pair(kernel_size), 1, channels)
        self.kernel = nnx.Param((kernel_init or kaiming_normal())(rngs.params(), shape, channels))
        if bias:
            self.bias = nnx.Param(torch_uniform(shape[0] * shape[1])(rngs.params(), (channels,)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel = self.kernel.get_value().astype(self.dtype)
        y = depthwise_conv(x.astype(self.dtype), kernel, self.stride, self.padding)
        return y + self.bias.get_value().astype(self.dtype).reshape(1, 1, 1, -1) if hasattr(self, "bias") else y
