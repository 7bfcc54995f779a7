"""Dropout whose randomness is an argument of the call."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError


def dropout(x: Float[Array, "*s"], rate: float, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "*s"]:
    """Zeroes each value with probability `rate` and divides the rest by 1 - rate; the identity unless `train`.

    Raises UserError when it needs randomness and `rngs` is None.
    """
    if not train or rate == 0.0:
        return x
    if rngs is None:
        raise UserError("this network has dropout: call it as model(..., train=True, rngs=nnx.Rngs(dropout=seed))")
    keep = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)
