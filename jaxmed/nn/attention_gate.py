"""Attention gate: the decoder decides which pixels of a skip connection pass."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.keras_defaults import KERAS_INIT
from jaxmed.nn.separable import SeparableConv


class AttentionGate(nnx.Module):
    """Oktay et al. 2018 with the decoder interaction network's context: two separable convolutions, the second dilated by 2.

    a = relu(W_x x + W_g g), both to `hidden` channels; x * sigmoid(psi(sep2(sep1(a)))), no activation in between.
    `skip_channels` are those of x, `channels` those of g; the maps have one size.
    """

    def __init__(
        self, skip_channels: int, channels: int, hidden: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.x = Conv(skip_channels, hidden, 1, **KERAS_INIT, **shape)
        self.g = Conv(channels, hidden, 1, **KERAS_INIT, **shape)
        self.sep1 = SeparableConv(hidden, hidden, **shape)
        self.sep2 = SeparableConv(hidden, hidden, dilation=2, **shape)
        self.psi = Conv(hidden, 1, 1, **KERAS_INIT, **shape)

    def __call__(self, x: Float[Array, "b h w s"], g: Float[Array, "b h w c"]) -> Float[Array, "b h w s"]:
        context = self.sep2(self.sep1(jax.nn.relu(self.x(x) + self.g(g))))
        return x * jax.nn.sigmoid(self.psi(context))
