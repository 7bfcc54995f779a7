"""What all forms of the selective scan take, and the formulas that they share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ScanInputs(NamedTuple):
    """Channels in g groups of p. A has the channels last: with a state [n, p] a token's update runs along memory."""

    u: Float[Array, "b l g p"]
    delta: Float[Array, "b l g p"]
    A: Float[Array, "g n p"]
    B: Float[Array, "b l g n"]
    C: Float[Array, "b l g n"]
    bias: Float[Array, "g p"]


def state_dtype(*inputs: Array) -> jnp.dtype:
    """float32, or float64 where an input is."""
    return jnp.promote_types(jnp.float32, jnp.result_type(*inputs))


def step_size(delta: Float[Array, "*b p"], bias: Float[Array, "*g p"], softplus: bool) -> Float[Array, "*b p"]:
    """dt in the dtype of `bias`."""
    z = delta.astype(bias.dtype) + with_rank(bias, delta.ndim)
    return jax.nn.softplus(z) if softplus else z


def decay(dt: Float[Array, "*b p"], A: Float[Array, "*g n p"]) -> Float[Array, "*b n p"]:
    """exp(dt A)."""
    return jnp.exp(dt[..., None, :] * with_rank(A, dt.ndim + 1))


def entry(dt: Float[Array, "*b p"], u: Float[Array, "*b p"], B: Float[Array, "*b n"]) -> Float[Array, "*b n p"]:
    """dt u B: what a token adds to the state."""
    return (dt * u)[..., None, :] * B[..., None]


def read(C: Float[Array, "*b n"], h: Float[Array, "*b n p"]) -> Float[Array, "*b p"]:
    """<C, h>."""
    return jnp.sum(C[..., None] * h, -2)


def with_rank(x: Array, rank: int) -> Array:
    """`x` with axes of length one in front."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)
