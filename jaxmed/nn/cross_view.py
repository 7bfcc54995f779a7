"""Two views of a breast look at each other (X-Pruning, "Crossing-attention transformer block")."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmed.errors import UserError
from jaxmed.nn.attention import split_heads
from jaxmed.nn.init import TRANSFORMER_INIT, normal, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.long_attention import attend_long
from jaxmed.nn.mlp import Mlp
from jaxmed.nn.norm import LayerNorm
from jaxmed.nn.pool import avg_pool
from jaxmed.nn.recompute import recomputed
from jaxmed.ops.window_pruning import Windows

EPS = 1e-5
VIEWS = ("cc", "mlo")
Map = Float[Array, "b h w d"]
Pair = tuple[Map, Map]
Choose = Callable[[Map], tuple[Windows, Int[Array, "b k"]] | None]


class CrossViewBlock(nnx.Module):
    """Queries from the own view, keys and values from the other one, then an MLP; each behind a norm and around a shortcut.

    y = x + attention(norm_q(x), norm_kv(z)); y = y + mlp(norm(y)); norm_out(y). No position bias: the views are not aligned.
    plain=True has one norm for both views, no bias of query, key and value, and no norm at the end. zero_init: the layers
    that end the branches start at zero. grid = (rows, columns) adds learned positions behind the norms, the sum of one vector
    per row and one per column. Raises UserError where the heads do not divide the width.
    """

    def __init__(
        self, dim: int, num_heads: int, *, plain: bool = False, zero_init: bool = False, grid: tuple[int, int] | None = None,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        if dim % num_heads:
            raise UserError(f"{num_heads} heads do not divide the {dim} channels of the cross-attention; set ctb_heads")
        self.num_heads, self.plain = num_heads, plain
        shape = dict(dtype=dtype, rngs=rngs)
        self.norm_q = LayerNorm(dim, eps=EPS, dtype=dtype)
        if not plain:
            self.norm_kv = LayerNorm(dim, eps=EPS, dtype=dtype)
            self.norm_out = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.q = Linear(dim, dim, bias=not plain, **TRANSFORMER_INIT, **shape)
        self.kv = Linear(dim, 2 * dim, bias=not plain, **TRANSFORMER_INIT, **shape)
        self.proj = Linear(dim, dim, **TRANSFORMER_INIT, **shape)
        self.norm = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.mlp = Mlp(dim, 4 * dim, **shape)
        if zero_init:
            for layer in (self.proj, self.mlp.fc2):
                layer.kernel.set_value(zeros(None, layer.kernel.shape))
        self.positions = nnx.Dict({
            name: nnx.Param(normal(0.02)(rngs.params(), (n, dim))) for name, n in zip(("rows", "columns"), grid, strict=True)
        } if grid else {})  # fmt: skip

    def __call__(self, x: Map, keys: Float[Array, "b s d"]) -> Map:
        """x: the own view's map; keys: `self.keys` of the other view."""
        shape, q = x.shape, self.queries(x)
        k, v = split_heads(self.kv(keys), 2, self.num_heads)
        x = x.reshape(q.shape[0], q.shape[1], -1)
        x = x + self.proj(attend_long(q, k, v))
        x = x + self.mlp(self.norm(x))
        return (x if self.plain else self.norm_out(x)).reshape(shape)

    def queries(self, x: Float[Array, "b h w d"]) -> Float[Array, "b t h k"]:
        """Queries of all tokens, cut into heads."""
        return split_heads(self.q(self._placed(self.norm_q(x)).reshape(x.shape[0], -1, x.shape[-1])), 1, self.num_heads)[0]

    def keys(self, z: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        """What keys and values are made of: the other view's map, normed and with its positions."""
        return self._placed((self.norm_q if self.plain else self.norm_kv)(z))

    def weights(
        self, x: Float[Array, "b h w d"], keys: Float[Array, "b r c d"], tokens: Int[Array, "*b n"],
        seen: Float[Array, "b r c"] | None = None,
    ) -> Float[Array, "b n s"]:
        """Attention of some tokens of the own view (row by row) on each key, mean over heads, float32; rows sum to 1.

        tokens: the same of every case, or of each its own. seen: 0 for keys that the block does not get.
        """
        q, keys = self.queries(x), keys.reshape(keys.shape[0], -1, keys.shape[-1])
        tokens = jnp.broadcast_to(tokens, (len(q), tokens.shape[-1]))
        q = jnp.take_along_axis(q, tokens[:, :, None, None], 1)
        k = split_heads(self.kv(keys), 2, self.num_heads)[0]
        scores = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        if seen is not None:
            scores = jnp.where(seen.reshape(len(seen), 1, 1, -1) > 0, scores, -jnp.inf)
        return jnp.mean(jax.nn.softmax(scores), 1)

    def _placed(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        if not self.positions:
            return x
        rows, columns = (self.positions[name].get_value() for name in ("rows", "columns"))
        if x.shape[1:3] != (len(rows), len(columns)):
            raise UserError(f"ctb_grid={(len(rows), len(columns))}, but the views' maps are {x.shape[1]} x {x.shape[2]}")
        return x + (rows[:, None] + columns[None, :])[None].astype(x.dtype)


class Exchange(nnx.Module):
    """`depth` cross-attention blocks per direction, each direction with weights of its own, both from the same two maps.

    Maps of other than `dim` channels, or a pool > 1 (cells of pool x pool tokens are averaged and their answer is repeated),
    go around: x + out(blocks(into(pool(x)))).
    """

    def __init__(
        self, channels: int, dim: int, depth: int, num_heads: int, pool: int, options: dict[str, Any], *, dtype, rngs: nnx.Rngs
    ):
        self.pool, self.around = pool, channels != dim or pool > 1
        shape = dict(dtype=dtype, rngs=rngs)
        for view in VIEWS:
            blocks = [CrossViewBlock(dim, num_heads, **options, **shape) for _ in range(depth)]
            setattr(self, view, nnx.List(blocks))
            if self.around:
                setattr(self, f"{view}_in", Linear(channels, dim, **shape))
                setattr(self, f"{view}_out", Linear(dim, channels, **shape))

    def __call__(self, cc: Map, mlo: Map, choose: Choose = lambda z: None, remat: bool = False) -> Pair:
        """`choose`: map -> (its windows, those that give keys and values), or None: all tokens do. `remat` as in SwinPruned."""
        maps = self.entered(cc, mlo)
        for pair in zip(self.cc, self.mlo, strict=True):
            maps = [self._block(block, x, z, choose, remat) for block, x, z in zip(pair, maps, maps[::-1], strict=True)]
        if not self.around:
            return tuple(maps)
        outs = [getattr(self, f"{view}_out")(x) for view, x in zip(VIEWS, maps, strict=True)]
        return tuple(x + self._repeated(y, x.shape) for x, y in zip((cc, mlo), outs, strict=True))

    def entered(self, cc: Map, mlo: Map) -> list[Map]:
        """The maps that the blocks see."""
        if not self.around:
            return [cc, mlo]
        pooled = [avg_pool(x, self.pool, self.pool) if self.pool > 1 else x for x in (cc, mlo)]
        return [getattr(self, f"{view}_in")(x) for view, x in zip(VIEWS, pooled, strict=True)]

    def _block(self, block: CrossViewBlock, x: Map, z: Map, choose: Choose, remat: bool) -> Map:
        def run(block: CrossViewBlock, x: Map, z: Map, rngs: None) -> Map:
            keys, chosen = block.keys(z), choose(z)
            keys = keys if chosen is None else chosen[0].take(keys, chosen[1])
            return block(x, keys.reshape(len(keys), -1, keys.shape[-1]))

        return recomputed(run, block, x, z, rngs=None) if remat else run(block, x, z, None)

    def _repeated(self, y: Map, shape: Sequence[int]) -> Map:
        """The pooled answer at every token; the last row or column again where they do not fill a cell."""
        y = jnp.repeat(jnp.repeat(y, self.pool, 1), self.pool, 2)
        pads = [(0, n - m) for n, m in zip(shape[1:3], y.shape[1:3], strict=True)]
        return jnp.pad(y, ((0, 0), *pads, (0, 0)), mode="edge")
