"""Cross-stage attention of CSA-MoE-Net: the stages of an encoder vote on the channels of its last map."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import normal
from jaxmed.nn.linear import Linear
from jaxmed.nn.pool import global_avg_pool


class CrossStageAttention(nnx.Module):
    """CSA-MoE-Net, section II-C-2, eqs. 4 to 9.

    One learnable query [dim] attends over the stages' mean features; the attended value becomes channel weights of the
    last map through a dim -> hidden -> channels[-1] network with a sigmoid. Key and value projections have no bias (the
    parameter count of Table IV decides). The query starts as N(0, 0.02).
    """

    def __init__(
        self, channels: Sequence[int], *, dim: int = 128, hidden: int = 64,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.query = nnx.Param(normal(0.02)(rngs.params(), (dim,)))
        self.keys = nnx.List([Linear(c, dim, bias=False, dtype=dtype, rngs=rngs) for c in channels])
        self.values = nnx.List([Linear(c, dim, bias=False, dtype=dtype, rngs=rngs) for c in channels])
        self.down = Linear(dim, hidden, dtype=dtype, rngs=rngs)
        self.up = Linear(hidden, channels[-1], dtype=dtype, rngs=rngs)

    def __call__(self, maps: Sequence[Float[Array, "b _h _w _c"]]) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
        """Maps of k stages -> (the last map re-weighted per channel, the attention over stages)."""
        means = [global_avg_pool(m) for m in maps]
        keys = jnp.stack([key(z) for key, z in zip(self.keys, means, strict=True)], 1)
        values = jnp.stack([value(z) for value, z in zip(self.values, means, strict=True)], 1)
        query = self.query.get_value()
        scores = jnp.einsum("bkd,d->bk", keys.astype(jnp.float32), query) / query.size**0.5
        attention = jax.nn.softmax(scores)
        attended = jnp.einsum("bk,bkd->bd", attention, values.astype(jnp.float32))
        weights = jax.nn.sigmoid(self.up(jax.nn.relu(self.down(attended))))
        return maps[-1] * weights.astype(maps[-1].dtype)[:, None, None, :], attention
