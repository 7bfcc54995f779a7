"""The Cross-Self-attention Mixed-experts module of HSQformer (section 3.2, eqs. 1 to 3): in the projector, and for queries."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn.moe import mixture, noise_key
from jaxmed.nn.multi_head_attention import MultiHeadAttention
from jaxmed.nn.norm import LayerNorm
from jaxmed.nn.residual import add_branch, computed_once

EPS = 1e-5
ORDERS = ("serial", "parallel", "invert_serial")
Stats = dict[str, Array]


class TwoStreamAttention(nnx.Module):
    """The maps of the two encoders look at each other and at themselves; the sum of both streams goes on.

    order="serial" (paper): cross-attention, then self-attention, each after a norm and around a shortcut; both cross-attentions
    see the maps as they came. "invert_serial": self, then cross. "parallel": all four branches from the same two maps.
    """

    def __init__(self, dim: int, num_heads: int, order: str, *, dtype, rngs: nnx.Rngs):
        self.order = check_order(order)
        norm, attention = _parts(dim, num_heads, dtype, rngs)
        self.conv_self_norm, self.swin_self_norm, self.conv_pre_norm, self.swin_pre_norm = (norm() for _ in range(4))
        self.self_attention_swin, self.cross_attention_swin = attention(), attention()
        self.self_attention_conv, self.cross_attention_conv = attention(), attention()

    def __call__(self, swin: Float[Array, "b n c"], conv: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        if self.order == "parallel":
            branches = zip(self.own(swin, conv), self.other(swin, conv), strict=True)
            return computed_once(swin + conv + sum(own + other for own, other in branches))
        steps = (self.other, self.own) if self.order == "serial" else (self.own, self.other)
        for step in steps:
            more = step(swin, conv)
            swin, conv = (computed_once(x + y) for x, y in zip((swin, conv), more, strict=True))
        return computed_once(swin + conv)

    def other(self, swin: Array, conv: Array) -> tuple[Array, Array]:
        """Cross-attention of each stream on the other, both from the same normed maps."""
        swin, conv = self.swin_pre_norm(swin), self.conv_pre_norm(conv)
        return self.cross_attention_swin(swin, conv), self.cross_attention_conv(conv, swin)

    def own(self, swin: Array, conv: Array) -> tuple[Array, Array]:
        """Self-attention of each stream."""
        return self.self_attention_swin(self.swin_self_norm(swin)), self.self_attention_conv(self.conv_self_norm(conv))


class CSMProjector(nnx.Module):
    """Two maps of one scale -> one: `TwoStreamAttention`, then a mixture of experts around a shortcut. No drop path."""

    def __init__(
        self, dim: int, num_heads: int, *, num_experts: int, top_k: int, order: str, dropout: float, moe: dict[str, Any],
        dtype: jnp.dtype | str, rngs: nnx.Rngs,
    ):
        self.sclayer = TwoStreamAttention(dim, num_heads, order, dtype=dtype, rngs=rngs)
        self.moe_norm = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.moe = mixture(dim, num_experts, top_k, dropout=dropout, **moe, dtype=dtype, rngs=rngs)

    def __call__(
        self, swin: Float[Array, "b n c"], conv: Float[Array, "b n c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b n c"], Stats]:
        x = self.sclayer(swin, conv)
        y, stats = self.moe(self.moe_norm(x), train, rngs, aux=True)
        return computed_once(x + y), stats


class CSMQueryBlock(nnx.Module):
    """Queries look at one scale's tokens, at each other, and pass a mixture of experts, each after a norm, with drop path.

    The order of the two attentions is that of `TwoStreamAttention`; the released code has "serial" only.
    """

    def __init__(
        self, dim: int, num_heads: int, *, num_experts: int, top_k: int, order: str, drop_path: float, moe: dict[str, Any],
        dtype: jnp.dtype | str, rngs: nnx.Rngs,
    ):
        self.order, self.rate = check_order(order), drop_path
        norm, attention = _parts(dim, num_heads, dtype, rngs)
        self.cross_pre_norm_query, self.cross_pre_norm_kv, self.self_pre_norm, self.moe_norm = (norm() for _ in range(4))
        self.cross_att, self.self_att = attention(), attention()
        self.moe = mixture(dim, num_experts, top_k, **moe, dtype=dtype, rngs=rngs)

    def __call__(
        self, q: Float[Array, "b q d"], z: Float[Array, "b n d"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b q d"], Stats]:
        add = functools.partial(add_branch, rate=self.rate, train=train, rngs=rngs)
        if self.order == "parallel":
            q = add(add(q, self.cross(q, z)), self.own(q))
        elif self.order == "serial":
            q = add(q, self.cross(q, z))
            q = add(q, self.own(q))
        else:
            q = add(q, self.own(q))
            q = add(q, self.cross(q, z))
        y, stats = self.moe(self.moe_norm(q), train, rngs, aux=True)
        return add(q, y), stats

    def cross(self, q: Float[Array, "b q d"], z: Float[Array, "b n d"]) -> Float[Array, "b q d"]:
        """The queries' attention on the tokens."""
        return self.cross_att(self.cross_pre_norm_query(q), self.cross_pre_norm_kv(z))

    def own(self, q: Float[Array, "b q d"]) -> Float[Array, "b q d"]:
        """The queries' attention on each other."""
        return self.self_att(self.self_pre_norm(q))

    def attention(self, q: Float[Array, "b q d"], z: Float[Array, "b n d"]) -> Float[Array, "b q n"]:
        """How much the block's cross-attention looks at each token when it is given the queries `q`; mean over heads."""
        q = q + self.own(q) if self.order == "invert_serial" else q
        return self.cross_att.weights(self.cross_pre_norm_query(q), self.cross_pre_norm_kv(z))


def run_block(
    block: nnx.Module, *inputs: Array, train: bool, rngs: nnx.Rngs | None, remat: bool
) -> tuple[Float[Array, "b _ _"], Stats]:
    """block(*inputs, train, rngs); with `remat` its inner values are computed anew in the backward pass instead of stored."""
    if not remat or not train:
        return block(*inputs, train, rngs)
    graph, state = nnx.split(block)
    keys = {} if rngs is None else {"noise": noise_key(rngs), "dropout": _dropout_key(rngs)}

    def run(state: Any, keys: dict[str, Array], *inputs: Array) -> tuple[Array, Stats]:
        return nnx.merge(graph, state)(*inputs, train, nnx.Rngs(**keys) if keys else None)

    return jax.checkpoint(run)(state, keys, *inputs)


def _dropout_key(rngs: nnx.Rngs) -> Array:
    return rngs.dropout() if hasattr(rngs, "dropout") else rngs.noise()


def _parts(
    dim: int, num_heads: int, dtype: Any, rngs: nnx.Rngs
) -> tuple[Callable[[], LayerNorm], Callable[[], MultiHeadAttention]]:
    """What both modules are made of: a norm and an attention of the given width."""
    norm = functools.partial(LayerNorm, dim, eps=EPS, dtype=dtype)
    return norm, functools.partial(MultiHeadAttention, dim, num_heads, dtype=dtype, rngs=rngs)


def check_order(order: str) -> str:
    """The order itself; raises UserError unless it is one of ORDERS."""
    if order not in ORDERS:
        raise UserError(f"order={order!r} is none of {', '.join(map(repr, ORDERS))}")
    return order
