"""The attention gate of Attention U-Net."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.norm import BatchNorm


class Projection(nnx.Module):
    """1x1 convolution and batch norm."""

    def __init__(self, in_channels: int, channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = Conv(in_channels, channels, 1, dtype=dtype, rngs=rngs)
        self.bn = BatchNorm(channels, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h w o"]:
        return self.bn(self.conv(x), train)


class AdditiveGate(nnx.Module):
    """x * sigmoid(psi(relu(W_x x + W_g g))) with batch norms after all three (Oktay et al. 2018, eq. 1; the norms are those of
    the common 2-D form).

    `skip_channels` are those of x, `channels` those of g, `hidden` those of the sum; both maps have one size.
    """

    def __init__(
        self, skip_channels: int, channels: int, hidden: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.x = Projection(skip_channels, hidden, **shape)
        self.g = Projection(channels, hidden, **shape)
        self.psi = Projection(hidden, 1, **shape)

    def __call__(
        self, x: Float[Array, "b h w s"], g: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w s"]:
        return x * jax.nn.sigmoid(self.psi(jax.nn.relu(self.x(x, train) + self.g(g, train)), train))
