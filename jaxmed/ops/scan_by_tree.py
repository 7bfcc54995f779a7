"""One chunk of the selective scan by `jax.lax.associative_scan`: many tokens at once, for GPU and TPU."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops.scan_gradients import gradients
from jaxmed.ops.scan_inputs import decay, entry, read
from jaxmed.ops.scan_whole import compose

Tokens = tuple[Array, Array, Array, Array]  # u, dt [t, p]; B, C [t, n]


def forward(
    h: Float[Array, "n p"], A: Float[Array, "n p"], tokens: Tokens, reverse: bool
) -> tuple[Float[Array, "n p"], Float[Array, "t p"]]:
    """State before the chunk -> (state after it, y)."""
    u, dt, B, C = tokens
    states = _recur(decay(dt, A), entry(dt, u, B), h, reverse)
    return states[0 if reverse else -1], read(C, states)


def backward(
    h: Float[Array, "n p"], carry: tuple[Array, Array], A: Float[Array, "n p"], tokens: Tokens, v: Float[Array, "t p"],
    reverse: bool,
) -> tuple[tuple[Array, Array], Tokens]:
    """(r, dA so far) as the chunk behind hands them over -> those for the chunk before, and gradients of the tokens.

    `h` is the state before the chunk, v the gradient of y; the formulas are those of `scan_gradients`.
    """
    (u, dt, B, C), (r, dA) = tokens, carry
    a, x = decay(dt, A), entry(dt, u, B)
    p = _recur(a, x, h, reverse) - x
    direct = C[..., None] * v[..., None, :]
    handed = _recur(a, a * direct, r, not reverse)
    g = direct + (jnp.concatenate([r[None], handed[:-1]]) if reverse else jnp.concatenate([handed[1:], r[None]]))
    chunk_dA, grads = gradients(A, tokens, v, g, p)
    return (handed[-1 if reverse else 0], dA + jnp.sum(chunk_dA, 0)), grads


def _recur(a: Float[Array, "t n p"], x: Float[Array, "t n p"], start: Float[Array, "n p"], reverse: bool) -> Array:
    """All s_l = a_l s_{l-1} + x_l."""
    first = -1 if reverse else 0
    x = x.at[first].add(a[first] * start)
    return jax.lax.associative_scan(compose, (a, x), reverse=reverse)[1]
