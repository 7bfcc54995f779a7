"""One chunk of the selective scan token after token: CPUs do not gain from more parallelism than one token's channels."""

import jax
from jaxtyping import Array, Float

from jaxmed.ops.scan_inputs import decay, entry, read
from jaxmed.ops.scan_gradients import gradients

Tokens = tuple[Array, Array, Array, Array]  # u, dt [t, b, g, p]; B, C [t, b, g, n]


def forward(
    h: Float[Array, "b g n p"], A: Float[Array, "g n p"], tokens: Tokens, reverse: bool
) -> tuple[Float[Array, "b g n p"], Float[Array, "t b g p"]]:
    """State before the chunk -> (state after it, y)."""

    def step(h: Array, token: Tokens) -> tuple[Array, Array]:
        u, dt, B, C = token
        h = decay(dt, A) * h + entry(dt, u, B)
        return h, read(C, h)

    return jax.lax.scan(step, h, tokens, reverse=reverse)


def backward(
    h: Float[Array, "b g n p"], carry: tuple[Array, Array], A: Float[Array, "g n p"], tokens: Tokens,
    v: Float[Array, "t b g p"], reverse: bool,
) -> tuple[tuple[Array, Array], Tokens]:
    """(r, dA so far) behind the chunk -> the same before it, and the gradients of the tokens (`scan_chunked` has the formulas)."""

    def again(h: Array, token: Tokens) -> tuple[Array, Array]:
        u, dt, B, _ = token
        return decay(dt, A) * h + entry(dt, u, B), h

    def step(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple[Array, Array], Tokens]:
        (r, dA), ((u, dt, B, C), v, h) = carry, xs
        a = decay(dt, A)
        g, p = C[..., None] * v[..., None, :] + r, a * h
        token_dA, grads = gradients(A, (u, dt, B, C), v, g, p)
        return (a * g, dA + token_dA), grads

    _, states = jax.lax.scan(again, h, tokens, reverse=reverse)
    return jax.lax.scan(step, carry, (tokens, v, states), reverse=not reverse)
