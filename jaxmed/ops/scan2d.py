"""A map as sequences and back: the layouts that scans over a map read (VMamba, Liu et al. 2024, "cross-scan")."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def by_rows(x: Float[Array, "b h w *c"]) -> Float[Array, "b l *c"]:
    """Row after row: token h * width + w. Costs nothing."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


def by_columns(x: Float[Array, "b h w *c"]) -> Float[Array, "b l *c"]:
    """Column after column: token w * height + h."""
    return by_rows(jnp.swapaxes(x, 1, 2))


def merge(rows: Float[Array, "b l c"], columns: Float[Array, "b l c"], height: int, width: int) -> Float[Array, "b h w c"]:
    """The sum of both layouts' results as a map."""
    b, _, c = rows.shape
    return rows.reshape(b, height, width, c) + jnp.swapaxes(columns.reshape(b, width, height, c), 1, 2)
