"""What learned queries look at."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.explain.layers import token_grid


def query_maps(attention: Sequence[Float[Array, "b q _n"]], size: tuple[int, int]) -> list[Float[Array, "b _h _w"]]:
    """Per scale the attention on each token, mean over the queries, as a map over a picture of `size` (height, width).

    The maps of a case sum to 1. Raises UserError where the tokens are no grid in the picture's proportions.
    """
    maps = []
    for weights in attention:
        grid = token_grid(weights.shape[-1], size)
        if grid is None:
            raise UserError(f"attention on {weights.shape[-1]} tokens is no grid over {size[0]} x {size[1]} pixels")
        maps.append(jnp.mean(weights.astype(jnp.float32), 1).reshape(-1, *grid))
    return maps
