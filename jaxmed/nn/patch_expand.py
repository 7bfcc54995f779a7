"""Tokens that become several: the inverse of patch merging."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import trunc_normal
from jaxmed.nn.linear import Linear
from jaxmed.nn.norm import LayerNorm
from jaxmed.ops.depth_to_space import depth_to_space

EPS = 1e-5


class PatchExpand(nnx.Module):
    """Each position to `scale` x `scale` positions of `channels` numbers (patch expanding layer of Swin-Unet, Cao et al. 2022).

    `expand`, a linear layer without bias, gives scale * scale * channels numbers, ordered (row, column, channel); then `norm`.
    """

    def __init__(self, dim: int, channels: int, scale: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.scale = scale
        options = dict(bias=False, kernel_init=trunc_normal(0.02), dtype=dtype, rngs=rngs)
        self.expand = Linear(dim, scale * scale * channels, **options)
        self.norm = LayerNorm(channels, eps=EPS, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 c"]:
        return self.norm(depth_to_space(self.expand(x), self.scale))
