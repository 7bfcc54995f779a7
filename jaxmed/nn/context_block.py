"""The residual block of the decoder interaction network."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.dual_path import DualPathAttention
from jaxmed.nn.hmsf import HMSF
from jaxmed.nn.keras_defaults import KERAS_INIT, KERAS_NORM
from jaxmed.nn.norm import BatchNorm
from jaxmed.nn.residual import computed_once
from jaxmed.nn.separable import SeparableConv


class ContextBlock(nnx.Module):
    """h = BN(relu(sep(X))), h = BN(sep(h)), multi-scale fusion, dual-path attention, relu(h + residual).

    The activation stands before the norm, as in the released code. `hmsf` and `attention` switch the two parts; the residual
    is X itself or, for another number of channels, its 1x1 convolution.
    """

    def __init__(
        self, in_channels: int, channels: int, *, attention: bool, hmsf: bool = True,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.conv1 = SeparableConv(in_channels, channels, **shape)
        self.bn1 = BatchNorm(channels, **KERAS_NORM, dtype=dtype)
        self.conv2 = SeparableConv(channels, channels, **shape)
        self.bn2 = BatchNorm(channels, **KERAS_NORM, dtype=dtype)
        if hmsf:
            self.hmsf = HMSF(channels, **shape)
        if attention:
            self.attention = DualPathAttention(channels, **shape)
        if in_channels != channels:
            self.proj = Conv(in_channels, channels, 1, **KERAS_INIT, **shape)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h w o"]:
        h = self.bn1(jax.nn.relu(self.conv1(x)), train)
        h = self.bn2(self.conv2(h), train)
        h = self.hmsf(h) if hasattr(self, "hmsf") else h
        h = self.attention(h) if hasattr(self, "attention") else h
        return computed_once(jax.nn.relu(h + (self.proj(x) if hasattr(self, "proj") else x)))
