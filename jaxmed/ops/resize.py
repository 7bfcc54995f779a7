"""Maps of another size, with torch's sampling points (jax.image.resize smooths when it shrinks)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmed.errors import UserError

METHODS = ("bilinear", "nearest")


def resize(
    x: Float[Array, "b h w c"], size: tuple[int, int], method: str = "bilinear", align_corners: bool = False
) -> Float[Array, "b h2 w2 c"]:
    """torch's interpolate without antialiasing: `size` = (h2, w2), method "bilinear" or "nearest".

    align_corners=True puts the first and last pixels of both maps on each other; False, the whole areas. "nearest" takes pixel
    floor(i h / h2) and knows no align_corners. Raises UserError for another method and for empty sizes.
    """
    if method not in METHODS:
        raise UserError(f"resize knows {' and '.join(METHODS)}, not {method!r}")
    if min(*x.shape[1:3], *size) < 1:
        raise UserError(f"cannot resize a map of {x.shape[1]} x {x.shape[2]} to {size[0]} x {size[1]}")
    return _resize(x, tuple(size), method, align_corners)


def double(x: Float[Array, "b h w c"], method: str = "bilinear", align_corners: bool = False) -> Float[Array, "b h2 w2 c"]:
    """`resize` to twice the height and width."""
    return resize(x, (2 * x.shape[1], 2 * x.shape[2]), method, align_corners)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _resize(x: Array, size: tuple[int, int], method: str, align_corners: bool) -> Array:
    for axis, length in zip((1, 2), size, strict=True):
        if x.shape[axis] == length:
            continue
        low, share = sampling_points(x.shape[axis], length, method, align_corners)
        above = np.minimum(low + 1, x.shape[axis] - 1)
        before, after = (jnp.take(x, rows, axis, mode="clip") for rows in (low, above))
        weight = jnp.asarray(share, x.dtype).reshape([-1 if a == axis else 1 for a in range(4)])
        x = before + (after - before) * weight if share.any() else before
    return x


def _backward(size: tuple[int, int], method: str, align_corners: bool, like: Array, g: Array) -> tuple[Array]:
    """Transposed matrices: the scatter that XLA derives from a gather takes three times as long on CPU, and is not
    deterministic on GPU.
    """
    rows, columns = (resize_matrix(n, m, method, align_corners) for n, m in zip(like.shape[1:3], size, strict=True))
    product = functools.partial(jnp.einsum, precision="highest")
    dx = product("pw,bhpc->bhwc", columns, product("ph,bpwc->bhwc", rows, g.astype(jnp.float32)))
    return (dx.astype(g.dtype),)


_resize.defvjp(lambda x, *options: (_resize(x, *options), x), _backward)


def sampling_points(n: int, m: int, method: str, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each of m outputs over n inputs: the input at or before its point, and the share of the one after, float32."""
    i = np.arange(m)
    if method == "nearest":
        return i * n // m, np.zeros(m, np.float32)
    point = i * ((n - 1) / max(m - 1, 1)) if align_corners else np.maximum((i + 0.5) * (n / m) - 0.5, 0.0)
    low = np.minimum(np.floor(point).astype(int), n - 1)
    return low, (point - low).astype(np.float32)


def resize_matrix(n: int, m: int, method: str, align_corners: bool) -> np.ndarray:
    """[m, n]: the same as weights, rows sum to 1."""
    low, share = sampling_points(n, m, method, align_corners)
    matrix = np.zeros((m, n), np.float32)
    np.add.at(matrix, (np.arange(m), low), 1 - share)
    np.add.at(matrix, (np.arange(m), np.minimum(low + 1, n - 1)), share)
    return matrix
