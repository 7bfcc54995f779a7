"""One chunk of the selective scan, token after token: a CPU core gains nothing from seeing many tokens at once."""

import jax
from jaxtyping import Array, Float

from jaxmed.ops.scan_gradients import gradients
from jaxmed.ops.scan_inputs import decay, entry, read

Tokens = tuple[Array, Array, Array, Array]  # u, dt [t, p]; B, C [t, n]


def forward(
    h: Float[Array, "n p"], A: Float[Array, "n p"], tokens: Tokens, reverse: bool
) -> tuple[Float[Array, "n p"], Float[Array, "t p"]]:
    """State before the chunk -> (state after it, y)."""

    def step(h: Array, token: Tokens) -> tuple[Array, Array]:
        u, dt, B, C = token
        h = decay(dt, A) * h + entry(dt, u, B)
        return h, read(C, h)

    return jax.lax.scan(step, h, tokens, reverse=reverse)


def backward(
    h: Float[Array, "n p"], carry: tuple[Array, Array], A: Float[Array, "n p"], tokens: Tokens, v: Float[Array, "t p"],
    reverse: bool,
) -> tuple[tuple[Array, Array], Tokens]:
    """(r, dA so far) as the chunk behind hands them over -> those for the chunk before, and gradients of the tokens.

    `h` is the state before the chunk, v the gradient of y; the formulas are those of `scan_gradients`.
    """

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
