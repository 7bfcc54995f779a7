"""Which windows of a map matter, and work on these alone: scores, a static top-K per image, gather and scatter.

X-Pruning, "Pruned transformer block"; the mechanism is SparseViT's (Chen et al., CVPR 2023).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.errors import UserError
from jaxmed.ops.windows import shift_mask

SCORES = ("xpruning", "sparsevit")


@dataclass(frozen=True)
class Windows:
    """The size x size windows of maps of height x width, after a cyclic shift; n of them, row by row, t = size^2 tokens each.

    As in Swin the map is padded with zeros to whole windows, and an axis that has a single window is not shifted.
    """

    height: int
    width: int
    size: int
    shift: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return -(-self.height // self.size), -(-self.width // self.size)

    @property
    def count(self) -> int:
        """n."""
        return self.grid[0] * self.grid[1]

    @property
    def shifts(self) -> tuple[int, int]:
        """Positions by which rows and columns are moved up and to the left before the cut."""
        return tuple(self.shift if n > 1 else 0 for n in self.grid)

    @property
    def padded(self) -> bool:
        """Whether some windows hold tokens that the map does not have."""
        return bool(self.height % self.size or self.width % self.size)

    def take(self, x: Float[Array, "b h w c"], index: Int[Array, "b k"]) -> Float[Array, "b k t c"]:
        """The windows `index` of each image; padding is zero."""
        cut = jax.vmap(lambda image, i: image[i // self.grid[1], :, i % self.grid[1]])(self._cut(x), index)
        return cut.reshape(*index.shape, self.size**2, x.shape[-1])

    def put(
        self, x: Float[Array, "b h w c"], index: Int[Array, "b k"], windows: Float[Array, "b k t c"]
    ) -> Float[Array, "b h w c"]:
        """`x` with other contents in the windows `index` (all different within an image); the rest keeps its bits."""
        windows = windows.reshape(*index.shape, self.size, self.size, x.shape[-1])

        def write(image, i, new):
            return image.at[i // self.grid[1], :, i % self.grid[1]].set(new, unique_indices=True)

        full = jax.vmap(write)(self._cut(x), index, windows)
        full = full.reshape(x.shape[0], *(n * self.size for n in self.grid), x.shape[-1])
        full = jnp.roll(full, self.shifts, (1, 2)) if any(self.shifts) else full
        return full[:, : self.height, : self.width]

    def scores(self, magnitude: Float[Array, "b h w"], score: str) -> Float[Array, "b n"]:
        """One number per window from `token_magnitude` of the same `score`: the mean, or the L2 norm, over its tokens.

        Padding is left out of the mean, and the norm of a window that has padding is scaled up to t tokens.
        """
        tokens = self._cut(magnitude[..., None])
        tokens = jnp.swapaxes(tokens, 2, 3).reshape(len(magnitude), self.count, -1)
        share = jnp.asarray(_inside(self).mean(1, dtype=np.float32))[None]
        if score == "sparsevit":
            return jnp.sqrt(jnp.sum(jnp.square(tokens), -1) / share)
        return jnp.mean(tokens, -1) / share

    def top(self, magnitude: Float[Array, "b h w"], score: str, keep: int) -> Int[Array, "b k"]:
        """The `keep` windows of each image with the highest scores, descending; among equals the first. No gradient.

        From one map the choice of fewer is the start of the choice of more: sets are nested.
        """
        return jax.lax.top_k(jax.lax.stop_gradient(self.scores(magnitude, score)), keep)[1]

    def inside(self, index: Int[Array, "b k"]) -> Float[Array, "b k t"]:
        """1 for tokens of the map, 0 for padding."""
        return jnp.asarray(_inside(self))[index]

    def mask(self, index: Int[Array, "b k"]) -> Float[Array, "b k t t"] | None:
        """The rows of Swin's shift mask (0 or -100) that belong to these windows; None without a shift."""
        if not any(self.shifts):
            return None
        part = jnp.asarray(_parts(self))[index]
        return jnp.where(part[..., :, None] == part[..., None, :], 0.0, -100.0)

    def _cut(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows s columns s c"]:
        """The padded and shifted map with its axes split."""
        (rows, columns), s = self.grid, self.size
        if self.padded:
            x = jnp.pad(x, ((0, 0), (0, rows * s - self.height), (0, columns * s - self.width), (0, 0)))
        x = jnp.roll(x, tuple(-n for n in self.shifts), (1, 2)) if any(self.shifts) else x
        return x.reshape(x.shape[0], rows, s, columns, s, x.shape[-1])


def token_magnitude(x: Float[Array, "b h w c"], score: str) -> Float[Array, "b h w"]:
    """"xpruning": L2 norm over the channels (the paper's text); "sparsevit": mean absolute value (the released code). float32.

    Raises UserError for another word.
    """
    if score not in SCORES:
        raise UserError(f"score={score!r} is none of {', '.join(map(repr, SCORES))}")
    x = jax.lax.stop_gradient(x).astype(jnp.float32)
    return jnp.mean(jnp.abs(x), -1) if score == "sparsevit" else jnp.sqrt(jnp.sum(jnp.square(x), -1))


def kept(count: int, ratio: float) -> int:
    """K = floor(count (1 - ratio)), at least 1; a product that rounding left just below a whole number counts as that."""
    return max(1, int(count * (1 - ratio) + 1e-6))


@functools.cache
def _inside(windows: Windows) -> np.ndarray:
    """[n, t] float32: 1 for tokens of the map."""
    (rows, columns), s = windows.grid, windows.size
    there = np.zeros((rows * s, columns * s), np.float32)
    there[: windows.height, : windows.width] = 1
    return _tokens(np.roll(there, [-n for n in windows.shifts], (0, 1)), windows.grid, s)


@functools.cache
def _parts(windows: Windows) -> np.ndarray:
    """[n, t] int32: equal within a window for tokens that may see each other, namely the first token that they see."""
    size = [n * windows.size for n in windows.grid]
    return (shift_mask(*size, windows.size, windows.shifts) == 0).argmax(-1).astype(np.int32)


def _tokens(x: np.ndarray, grid: Sequence[int], size: int) -> np.ndarray:
    return x.reshape(grid[0], size, grid[1], size).swapaxes(1, 2).reshape(-1, size * size)
