"""Squeeze-and-excitation: the whole map decides how much each channel counts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.init import zeros
from jaxmed.nn.pool import global_avg_pool


class SqueezeExcite(nnx.Module):
    """Hu et al. 2018, eqs. 2 to 4: x * sigmoid(expand(act(reduce(mean of x)))), both layers 1x1 convolutions with bias.

    `hidden` channels in between. The mean is float32 whatever `dtype` is.
    """

    def __init__(
        self, channels: int, hidden: int, *, act: Callable[[Array], Array] = jax.nn.relu,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.act = act
        self.conv_reduce = Conv(channels, hidden, 1, bias_init=zeros, dtype=dtype, rngs=rngs)
        self.conv_expand = Conv(hidden, channels, 1, bias_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        mean = global_avg_pool(x)[:, None, None, :]
        return x * jax.nn.sigmoid(self.conv_expand(self.act(self.conv_reduce(mean))))
