"""Which expert computes which token: all of them, or each only its own.

Experts are two-layer networks given as (fc1 [e, d, h], bias [e, h], fc2 [e, h, d], bias [e, d]).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmed.nn.mlp import gelu

Weights = tuple[Array, Array, Array, Array]
Drop = Callable[[Array], Array]
LARGEST = 256  # rows of a block: more fill no cache better, fewer copy the experts' weights more often


def dense_experts(x: Float[Array, "n d"], gates: Float[Array, "_n e"], weights: Weights, drop: Drop) -> Float[Array, "n d"]:
    """Every expert on every token, weighed by the gates (one row of gates serves all tokens)."""
    w1, b1, w2, b2 = weights
    hidden = drop(gelu(jnp.einsum("nd,edh->enh", x, w1) + b1[:, None]))
    y = drop(jnp.einsum("enh,ehd->end", hidden, w2) + b2[:, None])
    return jnp.sum(y * gates.T[..., None].astype(y.dtype), 0)


def sorted_experts(
    x: Float[Array, "n d"], chosen: Int[Array, "n k"], gates: Float[Array, "n k"], weights: Weights, drop: Drop
) -> Float[Array, "n d"]:
    """Each token through its k experts only: tokens are grouped by expert, the groups cut into blocks of equal size."""
    w1, b1, w2, b2 = weights
    size = block_size(chosen.size, len(w1))
    plan = make_plan(chosen, len(w1), size)
    rows = x.at[plan.source // chosen.shape[1]].get(mode="fill", fill_value=0).reshape(-1, size, x.shape[-1])
    hidden = drop(gelu(grouped_matmul(rows, w1, plan.owner) + b1[plan.owner][:, None]))
    y = drop(grouped_matmul(hidden, w2, plan.owner) + b2[plan.owner][:, None])
    y = y.reshape(-1, x.shape[-1])[plan.place].reshape(*chosen.shape, -1)
    return jnp.sum(y * gates[..., None].astype(y.dtype), 1)


class Plan(NamedTuple):
    """owner: the expert of each block; place: the row, over all blocks, of each routed slot (token and choice, [n k]);
    source: the slot of each row, n k where the row is empty."""

    owner: Int[Array, " blocks"]
    place: Int[Array, " slots"]
    source: Int[Array, " rows"]


def block_size(slots: int, num_experts: int) -> int:
    """An eighth of an expert's fair share, so that about that much is padding; at least 16, or weights are read too often."""
    return min(LARGEST, max(16, -(-slots // (8 * num_experts) // 8) * 8))


def make_plan(chosen: Int[Array, "n k"], num_experts: int, size: int) -> Plan:
    """Slots grouped by expert in blocks of `size` rows; the number of blocks is what the worst routing needs."""
    slots = chosen.reshape(-1)
    mine = (slots[:, None] == jnp.arange(num_experts)[None]).astype(jnp.int32)
    rank = jnp.sum((jnp.cumsum(mine, 0) - 1) * mine, 1)  # among the slots of the same expert
    blocks = -(-jnp.sum(mine, 0) // size)
    last = jnp.cumsum(blocks)
    place = (last - blocks)[slots] * size + rank
    count = (slots.size + num_experts * (size - 1)) // size
    owner = jnp.minimum(jnp.searchsorted(last, jnp.arange(count), side="right"), num_experts - 1)
    source = jnp.full((count * size,), slots.size).at[place].set(jnp.arange(slots.size), unique_indices=True)
    return Plan(owner, place, source)


@jax.custom_vjp
def grouped_matmul(
    x: Float[Array, "blocks size i"], kernel: Float[Array, "e i o"], owner: Int[Array, " blocks"]
) -> Float[Array, "blocks size o"]:
    """Each block times the kernel of its owner. On CPU block by block; elsewhere one batched product, for which the kernels are
    gathered per block. Reverse mode only (no `jax.jvp`)."""
    return jax.lax.platform_dependent(x, kernel, owner, cpu=loop_matmul, default=batched_matmul)


def loop_matmul(x: Array, kernel: Array, owner: Array) -> Array:
    """One block after another: nothing is copied but the kernel at hand."""
    return jax.lax.map(lambda block: jnp.dot(block[0], kernel[block[1]]), (x, owner))


def batched_matmul(x: Array, kernel: Array, owner: Array) -> Array:
    """All blocks at once."""
    return jnp.einsum("nbi,nio->nbo", x, kernel[owner])


def loop_gradients(x: Array, kernel: Array, owner: Array, g: Array) -> tuple[Array, Array]:
    """Gradients of `x` and `kernel`, the latter summed in place, float32."""
    dx = jax.lax.map(lambda block: jnp.dot(block[0], kernel[block[1]].T), (g, owner))

    def add(i: Array, total: Array) -> Array:
        return total.at[owner[i]].add(jnp.dot(x[i].T, g[i], preferred_element_type=jnp.float32))

    return dx, jax.lax.fori_loop(0, len(x), add, jnp.zeros(kernel.shape, jnp.float32)).astype(kernel.dtype)


def batched_gradients(x: Array, kernel: Array, owner: Array, g: Array) -> tuple[Array, Array]:
    """The same, all blocks at once."""
    each = jnp.einsum("nbi,nbo->nio", x, g, preferred_element_type=jnp.float32)
    total = jnp.zeros(kernel.shape, jnp.float32).at[owner].add(each)
    return jnp.einsum("nbo,nio->nbi", g, kernel[owner]), total.astype(kernel.dtype)


def _forward(x: Array, kernel: Array, owner: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return grouped_matmul(x, kernel, owner), (x, kernel, owner)


def _backward(residuals: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array, None]:
    form = functools.partial(jax.lax.platform_dependent, cpu=loop_gradients, default=batched_gradients)
    return *form(*residuals, g), None


grouped_matmul.defvjp(_forward, _backward)
