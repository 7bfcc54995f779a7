"""The two-layer network of MISSFormer's blocks, with a depthwise convolution that tells it about positions."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.depthwise import DepthwiseConv
from jaxmed.nn.init import TRANSFORMER_INIT, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.mlp import gelu
from jaxmed.nn.norm import LayerNorm

EPS = 1e-5


class MixFFNSkip(nnx.Module):
    """fc2(gelu(norm1(dwconv(h) + h))), h = fc1(x) four times as wide (MISSFormer's Enhanced Mix-FFN, Huang et al. 2021).

    The published networks also hold `norm2` and `norm3`, which nothing uses.
    """

    def __init__(self, dim: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        shape = dict(dtype=dtype, rngs=rngs)
        self.fc1 = Linear(dim, 4 * dim, **TRANSFORMER_INIT, **shape)
        self.dwconv = DepthwiseConv(4 * dim, 3, padding=1, bias_init=zeros, **shape)
        self.norm1, self.norm2, self.norm3 = (LayerNorm(4 * dim, eps=EPS, dtype=dtype) for _ in range(3))
        self.fc2 = Linear(4 * dim, dim, **TRANSFORMER_INIT, **shape)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        hidden = self.fc1(x)
        return self.fc2(gelu(self.norm1(self.dwconv(hidden) + hidden)))
