"""Pooling with torch's padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmed.nn.conv import Pair, pair


def max_pool(x: Float[Array, "b h w c"], window: Pair, stride: Pair, padding: Pair = 0) -> Float[Array, "b h2 w2 c"]:
    """Maximum over windows, padded with -inf; among equal values the first (row by row) takes the gradient."""
    shape = dict(window=pair(window), stride=pair(stride), padding=pair(padding))
    return jax.lax.platform_dependent(
        x, cpu=functools.partial(shifted_max_pool, **shape), default=functools.partial(lax_max_pool, **shape)
    )


def lax_max_pool(x: Array, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """XLA's windowed reduction; its gradient is select-and-scatter."""
    pads = ((0, 0), *((p, p) for p in padding), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), pads)


def shifted_max_pool(x: Array, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """Running maximum over the shifted slices of the window, strictly greater values only."""
    pads = ((0, 0), *((p, p) for p in padding), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, stride, strict=True)]
    best = None
    for i in range(window[0]):
        for j in range(window[1]):
            stop = (i + (size[0] - 1) * stride[0] + 1, j + (size[1] - 1) * stride[1] + 1)
            part = jax.lax.slice(x, (0, i, j, 0), (x.shape[0], *stop, x.shape[3]), (1, *stride, 1))
            best = part if best is None else jnp.where(part > best, part, best)
    return best


def avg_pool(x: Float[Array, "b h w c"], window: Pair, stride: Pair) -> Float[Array, "b h2 w2 c"]:
    """Mean over windows, no padding; rows and columns that do not fill a window are dropped, as in torch."""
    (kh, kw), strides = pair(window), (1, *pair(stride), 1)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, kh, kw, 1), strides, "VALID")
    return total / (kh * kw)


def global_avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Mean over the map, in float32."""
    return jnp.mean(x, (1, 2), dtype=jnp.float32)


def global_max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Maximum over the map, in float32."""
    return jnp.max(x, (1, 2)).astype(jnp.float32)


def adaptive_avg_pool(x: Float[Array, "b h w c"], size: Pair) -> Float[Array, "b h2 w2 c"]:
    """torch's AdaptiveAvgPool2d: output cell i is the mean of rows floor(i h / h2) to ceil((i + 1) h / h2)."""
    if x.shape[1:3] == pair(size):
        return x
    rows, columns = (jnp.asarray(_cells(n, m), x.dtype) for n, m in zip(x.shape[1:3], pair(size), strict=True))
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns)


def _cells(length: int, cells: int) -> np.ndarray:
    """[cells, length] matrix that averages each cell's inputs."""
    matrix = np.zeros((cells, length), np.float32)
    for i in range(cells):
        start, stop = i * length // cells, -(-(i + 1) * length // cells)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix
