"""What one window of a view looks at in the other view (X-Pruning's cross-attention)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmed.errors import UserError
from jaxmed.explain.overlay import CROSS, Box, HeatMap
from jaxmed.nn.cross_view import VIEWS
from jaxmed.ops.window_pruning import SCORES, Windows, token_magnitude

CELL = 1  # of encoders without windows: a query is one cell of the map


def attends_across(model: nnx.Module) -> bool:
    """Whether the network's views look at each other."""
    return hasattr(model, "exchange") and hasattr(model, "attention_between")


def window_size(model: nnx.Module) -> int:
    """Of the queries, in tokens of the maps that are exchanged."""
    return getattr(model.cc, "window_size", CELL)


def parse_window(text: str | None) -> tuple[int, int] | None:
    """Row and column of "row,column"; UserError for other text."""
    parts = text.split(",") if text else []
    if text and (len(parts) != 2 or not all(part.strip().isdigit() for part in parts)):
        raise UserError(f"--window={text} is not row,column, counted from 0")
    return (int(parts[0]), int(parts[1])) if text else None


def look_across(
    model: nnx.Module, cc: Float[Array, "b h w c"], mlo: Float[Array, "b h w c"], wanted: Mapping[str, Float[Array, "b y x"]],
    window: tuple[int, int] | None = None,
) -> dict[str, tuple[Int[Array, "b 2"], Float[Array, "b h2 w2"]]]:
    """{view: (row and column of the window that asks, its mean attention over the other view's map)}; a map sums to 1.

    wanted: a map over each view's picture, zero or more; the window with the most of it asks, and where there is none or all is
    zero the window with the highest score (that of the pruning). window: its row and column, for both views and all cases.
    Raises UserError for a window that is not there.
    """
    maps, score, found = model.entered(cc, mlo), getattr(model.cc, "score", SCORES[0]), {}
    for view, x in zip(VIEWS, maps, strict=True):
        windows = Windows(*x.shape[1:3], window_size(model))
        if window is None:
            scores = windows.scores(token_magnitude(x, score), score)
            index = _chosen(windows, wanted.get(view, jnp.zeros((len(x), 1, 1))), scores)
        else:
            index = jnp.full(len(x), _number(windows, window))
        attention = model.attention_between(maps, view, _tokens(windows, index))
        place = jnp.stack([index // windows.grid[1], index % windows.grid[1]], 1)
        found[view] = place, jnp.mean(attention, 1)
    return found


def _number(windows: Windows, window: tuple[int, int]) -> int:
    rows, columns = windows.grid
    if not (0 <= window[0] < rows and 0 <= window[1] < columns):
        raise UserError(f"--window={window[0]},{window[1]}: rows go from 0 to {rows - 1}, columns from 0 to {columns - 1}")
    return window[0] * columns + window[1]


def _chosen(windows: Windows, wanted: Float[Array, "b y x"], scores: Float[Array, "b n"]) -> Int[Array, " b"]:
    fine = jax.image.resize(wanted, (len(wanted), windows.height, windows.width), "linear")
    heat = windows.scores(fine, SCORES[0])  # the mean over a window
    return jnp.argmax(jnp.where(jnp.max(heat, 1, keepdims=True) > 0, heat, scores), 1)


def _tokens(windows: Windows, index: Int[Array, " b"]) -> Int[Array, "b t"]:
    """The tokens of a window, row by row; of one that reaches over the edge the last ones again."""
    step = jnp.arange(windows.size)
    rows = jnp.minimum((index // windows.grid[1] * windows.size)[:, None] + step[None], windows.height - 1)
    columns = jnp.minimum((index % windows.grid[1] * windows.size)[:, None] + step[None], windows.width - 1)
    return (rows[:, :, None] * windows.width + columns[:, None, :]).reshape(len(index), -1)


def cross_map(view: str, place: Int[np.ndarray, " 2"], attention: Float[np.ndarray, "h w"]) -> HeatMap:
    """The attention over the other view of the window of `view` in row and column `place`."""
    other, peak = VIEWS[1 - VIEWS.index(view)], float(attention.max())
    name = f"window {place[0]},{place[1]} of {view} on {other}"
    cells = f"{attention.shape[0]} x {attention.shape[1]} tokens"
    uniform = 1 / attention.size
    return HeatMap(name, other, attention / peak, peak / uniform, f"exchange.{view}.0, {cells}", CROSS)


def query_box(place: Int[np.ndarray, " 2"], size: int, grid: tuple[int, int], picture: tuple[int, int]) -> Box:
    """The window over a picture of (height, width). size: tokens along its side; grid: of the map in tokens."""
    tall, wide = picture[0] / grid[0], picture[1] / grid[1]
    top, left = place[0] * size * tall, place[1] * size * wide
    return Box(top, left, min(size * tall, picture[0] - top), min(size * wide, picture[1] - left), "query")
