"""Windows of a map: cutting, joining, and which tokens of a shifted window may see each other."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def window_partition(x: Float[Array, "b h w c"], window: tuple[int, int]) -> Float[Array, "n t c"]:
    """Non-overlapping windows, row by row, and their tokens, row by row; `window` = (rows, columns) must tile the map."""
    b, h, w, c = x.shape
    rows, columns = window
    x = x.reshape(b, h // rows, rows, w // columns, columns, c)
    return jnp.swapaxes(x, 2, 3).reshape(-1, rows * columns, c)


def window_merge(windows: Float[Array, "n t c"], window: tuple[int, int], height: int, width: int) -> Float[Array, "b h w c"]:
    """The inverse of `window_partition` for maps of this height and width."""
    rows, columns = window
    x = windows.reshape(-1, height // rows, width // columns, rows, columns, windows.shape[-1])
    return jnp.swapaxes(x, 2, 3).reshape(-1, height, width, windows.shape[-1])


def pad_to_multiple(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
    """Zeros at the bottom and on the right up to the next multiples of `size`; what is no map is left as it is."""
    pads = [-n % size for n in x.shape[1:3]] if x.ndim == 4 else []
    return jnp.pad(x, ((0, 0), (0, pads[0]), (0, pads[1]), (0, 0))) if any(pads) else x


@functools.cache
def shift_mask(height: int, width: int, window: int, shift: tuple[int, int]) -> np.ndarray:
    """[windows, t, t]: 0 where two tokens of a window were neighbours before the cyclic shift, -100 where they were not.

    Swin Transformer (Liu et al. 2021), section 3.2, "Efficient batch computation for shifted configuration"; -100 is the
    published code's stand-in for minus infinity.
    """
    rows, columns = _regions(height, window, shift[0]), _regions(width, window, shift[1])
    region = (rows[:, None] * 3 + columns[None, :]).astype(np.float32)
    tokens = np.asarray(region.reshape(height // window, window, width // window, window).swapaxes(1, 2)).reshape(-1, window**2)
    return np.where(tokens[:, :, None] == tokens[:, None, :], 0.0, -100.0).astype(np.float32)


def _regions(length: int, window: int, shift: int) -> np.ndarray:
    """0, 1 or 2 for each position after the shift: before the last window, its own part of it, and what came round."""
    position = np.arange(length)
    return (position >= length - window).astype(int) + (position >= length - shift) if shift else np.zeros(length, int)


@functools.cache
def relative_position_index(window: int) -> Int[np.ndarray, "t t"]:
    """Row of the (2 window - 1)^2 table of relative positions for each pair of tokens (query, key)."""
    row, column = np.divmod(np.arange(window**2), window)
    dy, dx = row[:, None] - row[None, :] + window - 1, column[:, None] - column[None, :] + window - 1
    return dy * (2 * window - 1) + dx
