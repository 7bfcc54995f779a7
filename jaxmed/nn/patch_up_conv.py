"""Transposed convolution whose patches do not overlap."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import torch_uniform
from jaxmed.ops.depth_to_space import depth_to_space


class PatchUpConv(nnx.Module):
    """torch's ConvTranspose2d(in, out, 2, stride=2): each position becomes 2 x 2 by a linear layer; kernel [2, 2, in, out]."""

    def __init__(
        self, in_channels: int, channels: int, *, bias: bool = True, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        self.dtype = jnp.dtype(dtype)
        init = torch_uniform(4 * channels)  # what torch takes for the fan-in of a transposed kernel
        self.kernel = nnx.Param(init(rngs.params(), (2, 2, in_channels, channels)))
        if bias:
            self.bias = nnx.Param(init(rngs.params(), (channels,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel.get_value().astype(self.dtype)
        inside, out = kernel.shape[2:]
        y = jnp.dot(x.astype(self.dtype), kernel.transpose(2, 0, 1, 3).reshape(inside, 4 * out))
        y = depth_to_space(y, 2)
        return y + self.bias.get_value().astype(self.dtype).reshape(1, 1, 1, -1) if hasattr(self, "bias") else y
