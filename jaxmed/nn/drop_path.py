"""Stochastic depth (Huang et al. 2016): a residual branch is left out for whole cases."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError


def drop_path(x: Float[Array, "b *s"], rate: float, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b *s"]:
    """Zeroes the branch `x` of each case with probability `rate` and divides the rest by 1 - rate; the identity unless `train`.

    Raises UserError when it needs randomness and `rngs` is None.
    """
    if not train or rate == 0.0:
        return x
    if rngs is None:
        raise UserError("this network has drop path: call it as model(..., train=True, rngs=nnx.Rngs(dropout=seed))")
    keep = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """One rate per block of each stage, growing linearly from 0 at the first block to `rate` at the last."""
    rates = [float(r) for r in np.linspace(0.0, rate, sum(depths))]
    starts = np.cumsum([0, *depths])
    return [rates[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
