"""Gradients of the selective scan by hand. With v the gradient of y and g that of h, against the direction of the scan:

    g_l = C_l v_l + r_{l+1},   r_l = a_l g_l,   a_l = exp(dt_l A),   p_l = a_l h_{l-1}
    du_l = dt_l <B_l, g_l>               d(dt)_l = u_l <B_l, g_l> + <A, p_l g_l>
    dB_l = sum over channels of dt_l u_l g_l,   dC_l = sum over channels of v_l h_l,   dA = sum over tokens of dt_l p_l g_l

r, what a token hands to the one before, is carried in place of g, so that nothing shifts by one token. Nothing is divided by a,
which underflows.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops.scan_inputs import entry, with_rank


def gradients(
    A: Float[Array, "n p"], tokens: tuple[Array, Array, Array, Array], v: Float[Array, "*t p"], g: Float[Array, "*t n p"],
    p: Float[Array, "*t n p"],
) -> tuple[Float[Array, "*t n p"], tuple[Array, Array, Array, Array]]:
    """(each token's part of dA, gradients of u, dt, B, C); tokens: u, dt [*t, p], B, C [*t, n]."""
    u, dt, B, _ = tokens
    q, beta = p * g, jnp.sum(B[..., None] * g, -2)
    ddt = u * beta + jnp.sum(with_rank(A, q.ndim) * q, -2)
    dB = jnp.sum((dt * u)[..., None, :] * g, -1)
    dC = jnp.sum(v[..., None, :] * (p + entry(dt, u, B)), -1)
    return dt[..., None, :] * q, (dt * beta, ddt, dB, dC)
