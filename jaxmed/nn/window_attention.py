"""Attention inside windows with a learned bias for each relative position (Swin Transformer, Liu et al. 2021, eq. 4)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.attention import attend, split_heads
from jaxmed.nn.init import TRANSFORMER_INIT, trunc_normal
from jaxmed.nn.linear import Linear
from jaxmed.ops.windows import relative_position_index


class WindowAttention(nnx.Module):
    """`qkv` and `proj` act on single tokens and so on a whole map at once; `mix` lets the tokens of each window exchange."""

    def __init__(self, dim: int, num_heads: int, window_size: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.num_heads, self.window_size = num_heads, window_size
        table = trunc_normal(0.02)(rngs.params(), ((2 * window_size - 1) ** 2, num_heads))
        self.relative_position_bias_table = nnx.Param(table)
        options = TRANSFORMER_INIT | dict(dtype=dtype, rngs=rngs)
        self.qkv = Linear(dim, 3 * dim, **options)
        self.proj = Linear(dim, dim, **options)

    def mix(self, qkv: Float[Array, "n t c3"], mask: Float[Array, "k t t"] | None = None) -> Float[Array, "n t c"]:
        """Attention of n windows; `mask` is added to the scores, one for each of the k windows of an image (n = images * k)."""
        bias = self.bias()
        if mask is not None:
            bias = bias + mask[:, None]
            bias = jnp.broadcast_to(bias, (qkv.shape[0] // len(mask), *bias.shape)).reshape(-1, *bias.shape[1:])
        return attend(*split_heads(qkv, 3, self.num_heads), bias.astype(qkv.dtype))

    def bias(self) -> Float[Array, "1 h t t"]:
        """The bias of each pair of tokens."""
        table = self.relative_position_bias_table.get_value()
        return jnp.moveaxis(table[relative_position_index(self.window_size)], -1, 0)[None]
