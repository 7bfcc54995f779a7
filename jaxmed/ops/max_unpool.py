"""2x2 pooling that remembers where its maxima were, and the way back (SegNet, Badrinarayanan et al. 2017)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmed.ops.depth_to_space import depth_to_space


def pool_with_places(x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h2 w2 c"], Bool[Array, "b h w c"]]:
    """(maxima of the 2x2 windows, True where they stood); among equal values the first, row by row. h and w are even.

    By comparing the four shifted slices: with an argmax, pooling, unpooling and their gradient took 6.7 times as long on a CPU
    (4 x 112 x 112 x 64).
    """
    parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    pooled = parts[0]
    for part in parts[1:]:
        pooled = jnp.where(part > pooled, part, pooled)
    taken, places = jnp.zeros(pooled.shape, bool), []
    for part in parts:
        places.append((part == pooled) & ~taken)
        taken = taken | places[-1]
    return pooled, depth_to_space(jnp.concatenate(places, -1), 2)


def unpool(x: Float[Array, "b h2 w2 c"], places: Bool[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Each value back at its place in a window of 2x2; zeros elsewhere."""
    return jnp.where(places, jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), 0)
