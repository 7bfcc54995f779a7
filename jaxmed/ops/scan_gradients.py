"""Gradients of the selective scan's tokens once g and p are known (the formulas of `scan_chunked`)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops.scan_inputs import entry, with_rank


def gradients(
    A: Float[Array, "g n p"], tokens: tuple[Array, Array, Array, Array], v: Float[Array, "*b g p"],
    g: Float[Array, "*b g n p"], p: Float[Array, "*b g n p"],
) -> tuple[Float[Array, "*b g n p"], tuple[Array, Array, Array, Array]]:
    """Per token: (of A, (of u, dt, B, C)). tokens: u, dt [*b, g, p], B, C [*b, g, n]; g: gradient of the state; p: a h_{l-1}."""
    u, dt, B, _ = tokens
    q, beta = p * g, jnp.sum(B[..., None] * g, -2)
    ddt = u * beta + jnp.sum(with_rank(A, q.ndim) * q, -2)
    dB = jnp.sum((dt * u)[..., None, :] * g, -1)
    dC = jnp.sum(v[..., None, :] * (p + entry(dt, u, B)), -1)
    return dt[..., None, :] * q, (dt * beta, ddt, dB, dC)
