"""Which intermediate maps of a network can be looked at, and which are looked at when nobody says."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone
from jaxmed.errors import UserError
from jaxmed.explain.intercept import Seen, Slot, catching


@dataclass(frozen=True)
class Layer:
    """A map over the picture: `grid` is its (height, width) in cells.

    maps: how many there are per case (several views may go through one encoder as one batch). class_token: the first of its
    tokens is no part of the grid.
    """

    seen: Seen
    grid: tuple[int, int]
    maps: int = 1
    class_token: bool = False

    @property
    def name(self) -> str:
        """The path; see `Seen`."""
        return self.seen.name

    def slot(self, batch: int) -> Slot:
        """What `catching` wants to have to tap this layer in a batch of `batch` cases."""
        shape = (batch * self.maps, *self.seen.shape[1:])
        return jnp.zeros(shape, self.seen.dtype), jnp.zeros(shape, self.seen.dtype)

    def as_map(self, x: Float[Array, "b *n c"]) -> Float[Array, "b h w c"]:
        """An array of this layer's shape as a map; tokens lie row by row."""
        if x.ndim == 3:
            x = x[:, int(self.class_token) :].reshape(len(x), *self.grid, x.shape[-1])
        return x


@dataclass(frozen=True)
class Look:
    """What is looked at in one encoder (`encoder` is its path, "" the whole network): the last of `candidates` that the answer
    depends on. There are several only where a class token takes the answer away from the last maps."""

    encoder: str
    candidates: tuple[Layer, ...]


def layers(model: nnx.Module, *inputs: Any, **options: Any) -> list[Layer]:
    """Every map that `model(*inputs, **options)` makes, in the order of execution, without computing anything.

    inputs: arrays or jax.ShapeDtypeStruct, [b, h, w, c] or views [b, v, h, w, c]; with b = 2 arrays that are no maps of a case
    (tables of positions, windows) are told apart better. A map is [b, h, w, c], or tokens [b, n, c] with n = h w or h w + 1,
    in the proportions of the picture and with more than one row and column.
    """
    found: list[Seen] = []

    def call(*inputs: Array) -> None:
        with catching(model) as seen:
            model(*inputs, **options)
        found.extend(seen)

    jax.eval_shape(call, *inputs)
    return maps_of(found, inputs[0].shape)


def maps_of(found: Sequence[Seen], shape: tuple[int, ...]) -> list[Layer]:
    """Those of `found` that are maps over pictures of the input's `shape`."""
    batch, views, size = shape[0], shape[1] if len(shape) == 5 else 1, shape[-3:-1]
    made = [_layer(seen, batch, views, size) for seen in found]
    return [layer for layer in made if layer and min(layer.grid) > 1]


def looks(model: nnx.Module, found: Sequence[Layer], layer: str | None = None) -> list[Look]:
    """One look per encoder and call of it, in the order of execution: at its last map, or at `layer`.

    `layer` is a name as `layers` gives it, whole or without the path of the encoder ("layer3.1").

    Encoders are the outermost `Backbone`s; a network without any counts as one. A shared encoder that is called once per view
    gives one look per call. Raises UserError for a layer that no encoder has, naming those that there are.
    """
    chosen = []
    for encoder in encoders(model):
        prefix = f"{encoder}." if encoder else ""
        own = [item for item in found if item.name.startswith(prefix) or item.seen.module == encoder]
        if layer is None and own:
            wanted = own[-1].seen.label
        else:
            wanted = layer if layer and layer.startswith(prefix) else f"{prefix}{layer}"
        last = [item for item in own if item.seen.label == wanted]
        chosen += [Look(encoder, (item,) if layer else candidates(own, item)) for item in last]
    if not chosen:
        raise UserError(_unknown(layer, found))
    return sorted(chosen, key=lambda look: found.index(look.candidates[-1]))


def candidates(own: Sequence[Layer], last: Layer) -> tuple[Layer, ...]:
    """The layer itself; where it has a class token, which alone goes on behind the last attention, also those of its shape
    before it."""
    if not last.class_token:
        return (last,)
    return tuple(item for item in own[: own.index(last) + 1] if item.seen.shape == last.seen.shape)


def encoders(model: nnx.Module) -> list[str]:
    """Paths of the outermost `Backbone`s; [""] if the network is one, or has none."""
    paths = sorted((path for path, module in nnx.iter_modules(model) if isinstance(module, Backbone)), key=len)
    outer: list[tuple] = []
    for path in paths:
        if not any(path[: len(above)] == above for above in outer):
            outer.append(path)
    return [".".join(map(str, path)) for path in outer] or [""]


def _layer(seen: Seen, batch: int, views: int, size: tuple[int, int]) -> Layer | None:
    count, rest = divmod(seen.shape[0], batch)
    if rest or not 1 <= count <= views:
        return None
    if len(seen.shape) == 4:
        return Layer(seen, seen.shape[1:3], count) if _proportional(seen.shape[1:3], size) else None
    for class_token in (False, True):
        if grid := token_grid(seen.shape[1] - class_token, size):
            return Layer(seen, grid, count, class_token)
    return None


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """(rows, columns) with rows * columns = tokens, in the proportions of a picture of `size`; None where there are none."""
    rows = round(math.sqrt(tokens * size[0] / size[1])) if tokens > 0 else 0
    if rows and tokens % rows == 0 and _proportional((rows, tokens // rows), size):
        return rows, tokens // rows
    return None


def _proportional(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether the grid may be that of a picture with some stride, sides rounded up or down."""
    return abs(grid[0] * size[1] - grid[1] * size[0]) < max(size)


def _unknown(layer: str | None, found: Sequence[Layer]) -> str:
    names = [item.name for item in found]
    if layer is None:
        return "this network has no intermediate map with more than one cell: give it larger pictures (config.data.size)"
    near = difflib.get_close_matches(layer, names, n=5, cutoff=0.3) or names[-5:]
    return f"--layer={layer}: no encoder has a map of that name; nearest: {', '.join(near)} (of {len(names)})"
