"""Transposed convolution that doubles a map."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import conv2d
from jaxmed.nn.init import zeros
from jaxmed.nn.keras_defaults import glorot_uniform
from jaxmed.ops.depth_to_space import depth_to_space


class UpConv(nnx.Module):
    """Keras' Conv2DTranspose(channels, 3, strides=2, padding="same"): [b, h, w, i] -> [b, 2h, 2w, o], no activation.

    The kernel is [3, 3, out, in] as in Keras, the bias [out].
    """

    def __init__(self, in_channels: int, channels: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(dtype)
        self.kernel = nnx.Param(glorot_uniform(rngs.params(), (3, 3, channels, in_channels)))
        self.bias = nnx.Param(zeros(None, (channels,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = double(x.astype(self.dtype), self.kernel.get_value().astype(self.dtype))
        return y + self.bias.get_value().astype(self.dtype).reshape(1, 1, 1, -1)


def double(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 o i"]) -> Float[Array, "b h2 w2 o"]:
    """Each pixel spreads over the 3x3 pixels from twice its position on; what leaves the doubled map is dropped.

    Even outputs take taps 0 and 2, odd ones tap 1 alone, so the four outputs of a pixel are a plain 2x2 convolution over it and
    its upper and left neighbours, with four times the channels. That form is a matrix product on every platform.
    """
    out, inside = kernel.shape[2:]
    taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(2, 2, 2, 2, out, inside)
    taps = taps[::-1, :, ::-1]  # taps 2t + p of output phase p, the neighbour (t = 1) first
    plain = taps.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, inside, 4 * out)
    return depth_to_space(conv2d(jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), plain), 2)
