"""Patches of an image, or of a map, to one position each."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.init import Initializer, zeros
from jaxmed.nn.norm import LayerNorm


class PatchEmbed(nnx.Module):
    """Strided convolution `proj` (patches overlap where `kernel` exceeds `stride`; what fills none is dropped), `norm`."""

    def __init__(
        self, in_channels: int, dim: int, kernel: int, stride: int, *, eps: float, padding: int = 0,
        kernel_init: Initializer | None = None, bias_init: Initializer = zeros, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = dict(stride=stride, padding=padding, kernel_init=kernel_init, bias_init=bias_init, dtype=dtype, rngs=rngs)
        self.proj = Conv(in_channels, dim, kernel, **options)
        self.norm = LayerNorm(dim, eps=eps, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.norm(self.proj(x))
