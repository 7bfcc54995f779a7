"""Regions of interest: the windows in which a saliency map is strongest, and the pixels there (Shen et al. 2021, GMIC).

Positions are discrete: nothing here has a gradient with respect to the map.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Pair = tuple[int, int]


def crop_window(crop_size: int, image_size: Pair, map_size: Pair) -> Pair:
    """(rows, columns) of the map that a square crop covers: its share of each side, rounded, at least one cell."""
    share = (round(crop_size * cells / pixels) for cells, pixels in zip(map_size, image_size, strict=True))
    return tuple(min(max(n, 1), cells) for n, cells in zip(share, map_size, strict=True))


def greedy_windows(saliency: Float[Array, "b h w c"], window: Pair, count: int) -> Int[Array, "b count 2"]:
    """Upper left cells (row, column) of `count` windows, the strongest first, each found in what the ones before have left.

    Every channel is scaled to 0..1 within its image (a constant one to 0) and the channels are added up; a window's score is
    its sum, among equal scores the first row by row wins, and the cells of a chosen window become 0. In float32 whatever the
    map is, because ties that come from rounding would change the crops.
    """
    x = jax.lax.stop_gradient(saliency.astype(jnp.float32))
    low, high = (f(x, (1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    start = jnp.sum((x - low) / jnp.where(high > low, high - low, 1.0), -1)

    def pick(left: Array, _) -> tuple[Array, Array]:
        score = jax.lax.reduce_window(left, 0.0, jax.lax.add, (1, *window), (1, 1, 1), "VALID")
        corner = jnp.stack(jnp.divmod(jnp.argmax(score.reshape(len(score), -1), -1), score.shape[2]), -1)
        return jnp.where(_covered(corner, window, left.shape[1:]), 0.0, left), corner

    corners = jax.lax.scan(pick, start, length=count)[1]
    return jnp.swapaxes(corners, 0, 1).astype(jnp.int32)


def _covered(corner: Int[Array, "b 2"], window: Pair, map_size: Pair) -> Array:
    """Which cells [b, h, w] lie in the window at `corner`."""
    sides = ((jnp.arange(n)[None] - at[:, None], size) for n, at, size in zip(map_size, corner.T, window, strict=True))
    rows, columns = ((offset >= 0) & (offset < size) for offset, size in sides)
    return rows[:, :, None] & columns[:, None, :]


def cells_to_pixels(cells: Int[Array, "*b 2"], map_size: Pair, image_size: Pair) -> Int[Array, "*b 2"]:
    """Upper left pixels of cells: row / rows of the map * height of the image, rounded; columns likewise."""
    tables = [np.round(np.arange(n) * (pixels / n)).astype(np.int32) for n, pixels in zip(map_size, image_size, strict=True)]
    return jnp.stack([jnp.asarray(table)[cells[..., axis]] for axis, table in enumerate(tables)], -1)


def crop_rois(image: Float[Array, "b h w c"], corners: Int[Array, "b k 2"], size: int) -> Float[Array, "b k s s c"]:
    """Squares of `size` pixels at native resolution, upper left pixels at `corners`.

    Where a square reaches out of the image, its content lies at the bottom right and the rest is the image's minimum.
    """
    short = [max(0, size - n) for n in image.shape[1:3]]
    padded = jnp.pad(image, ((0, 0), *((n, 0) for n in short), (0, 0)))
    low = jnp.min(image, (1, 2, 3))

    def crop(padded: Array, low: Array, corner: Array) -> Array:
        first = [jnp.minimum(at, n - size) for at, n in zip(corner, image.shape[1:3], strict=True)]  # in image pixels
        part = jax.lax.dynamic_slice(
            padded, (first[0] + short[0], first[1] + short[1], 0), (size, size, image.shape[-1])
        )
        rows, columns = (jnp.arange(size) + start >= at for start, at in zip(first, corner, strict=True))
        return jnp.where((rows[:, None] & columns[None, :])[..., None], part, low)

    of_image = jax.vmap(crop, (None, None, 0))
    return jax.vmap(of_image)(padded, low, corners)
