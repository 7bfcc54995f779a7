"""2x2 pooling that remembers where its maxima were, and the way back (SegNet, Badrinarayanan et al. 2017)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def pool_with_places(x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h2 w2 c"], Bool[Array, "b h w c"]]:
    """(maxima of the 2x2 windows, True where they stood); among equal values the first, row by row. h and w are even."""
    b, h, w, c = x.shape
    windows = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4, c)
    first = jnp.argmax(windows, 3, keepdims=True)
    pooled = jnp.take_along_axis(windows, first, 3)[:, :, :, 0]
    places = (first == jnp.arange(4).reshape(1, 1, 1, 4, 1)).reshape(b, h // 2, w // 2, 2, 2, c)
    return pooled, places.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


def unpool(x: Float[Array, "b h2 w2 c"], places: Bool[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Each value back at its place in a window of 2x2; zeros elsewhere."""
    return jnp.where(places, jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), 0)
