"""Softmax attention over tokens."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import TRANSFORMER_INIT
from jaxmed.nn.linear import Linear


def split_heads(x: Float[Array, "b t c"], parts: int, heads: int) -> list[Float[Array, "b t h d"]]:
    """`parts` tensors (query, key, value) that lie side by side in the channels, each cut into heads."""
    x = x.reshape(*x.shape[:2], parts, heads, -1)
    return [x[:, :, i] for i in range(parts)]


def attend(
    q: Float[Array, "b t h d"], k: Float[Array, "b s h d"], v: Float[Array, "b s h d"],
    bias: Float[Array, "_b h t s"] | None = None,
) -> Float[Array, "b t c"]:
    """softmax(q k^T / sqrt(d) + bias) v with the heads side by side again; softmax in float32."""
    out = jax.nn.dot_product_attention(q, k, v, bias=bias)
    return out.reshape(*out.shape[:2], -1)


class Attention(nnx.Module):
    """Multi-head self-attention over all tokens, query, key and value from one linear layer `qkv`, output through `proj`."""

    def __init__(self, dim: int, num_heads: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.num_heads = num_heads
        options = TRANSFORMER_INIT | dict(dtype=dtype, rngs=rngs)
        self.qkv = Linear(dim, 3 * dim, **options)
        self.proj = Linear(dim, dim, **options)

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        return self.proj(attend(*split_heads(self.qkv(x), 3, self.num_heads)))
