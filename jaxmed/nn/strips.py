"""Kernel gradients on CPU, summed over strips of the map that fit the processor's cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

Pair = tuple[int, int]
POSITIONS = 800  # output positions per strip; 400 to 900 measure the same


def window_slice(x: Array, start: Pair, size: Pair, stride: Pair) -> Array:
    """`size` rows and columns of x [b, h, w, c] from `start`, every `stride`-th."""
    stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, size, stride, strict=True)]
    return jax.lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[3]), (1, *stride, 1))


def sum_over_strips(
    x: Array, g: Array, reach: Pair, stride: Pair, padding: Pair, body: Callable[[Array, Array], Array]
) -> Array:
    """Sum of body(part of x, part of g) over strips of whole rows, or over small groups of images where maps are small.

    x [b, h, w, i] is a convolution's input, g [b, h2, w2, o] the gradient of its output, `reach` the rows and columns that
    one window spans. A part of x is zero-padded and holds just the rows that its part of g looked at.
    """
    height, width = g.shape[1:3]
    count = max(1, round(height * width / POSITIONS))
    rows = -(-height // count)
    images = largest_divisor(g.shape[0], POSITIONS // (height * width))
    last = (count * rows - 1) * stride[0] + reach[0]
    x = jnp.pad(x, ((0, 0), (padding[0], max(0, last - x.shape[1] - padding[0])), (padding[1], padding[1]), (0, 0)))
    g = jnp.pad(g, ((0, 0), (0, count * rows - height), (0, 0), (0, 0)))

    def part(step: Array) -> Array:
        image, row = step // count * images, step % count * rows
        size = (images, (rows - 1) * stride[0] + reach[0], *x.shape[2:])
        xs = jax.lax.dynamic_slice(x, (image, row * stride[0], 0, 0), size)
        return body(xs, jax.lax.dynamic_slice(g, (image, row, 0, 0), (images, rows, *g.shape[2:])))

    total = jax.eval_shape(part, jax.ShapeDtypeStruct((), jnp.int32))
    steps = g.shape[0] // images * count
    return jax.lax.fori_loop(0, steps, lambda step, sum_: sum_ + part(step), jnp.zeros(total.shape, total.dtype))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, and at least 1."""
    return next(d for d in range(max(1, min(number, limit)), 0, -1) if number % d == 0)
