"""Test-time flips: the network also sees mirror images of a picture, and the mean of its outputs is evaluated."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.errors import UserError

Axes = tuple[tuple[int, ...], ...]
# what the mirror images turn around, of arrays [b, h, w, c]; the empty tuple is the picture as it is
AXES = {"": ((),), "none": ((),), "h": ((), (2,)), "v": ((), (1,)), "hv": ((), (2,), (1,), (1, 2))}
TASKS = ("classification", "segmentation")  # views of a breast are oriented alike: a mirror image would be no such view


def flip_axes(flips: str, task: str) -> Axes:
    """The axes of `config.test_time_flips`. UserError for another word, or where a task's pictures have an orientation."""
    if flips not in AXES:
        raise UserError(f"config.test_time_flips={flips!r} is unknown; choose one of {', '.join(key for key in AXES if key)}")
    if len(AXES[flips]) > 1 and task not in TASKS:
        raise UserError(f"config.test_time_flips: with config.task={task!r} all views are oriented alike; leave it empty")
    return AXES[flips]


def mean_over_flips(forward: Callable[[list[Array]], Any], inputs: Sequence[Float[Array, "b h w c"]], axes: Axes) -> Any:
    """Every output of `forward(inputs)`, mean over the flips; those of four axes, such as mask logits, are turned back first.

    The mean is one of logits, so that the surer of two answers counts more.
    """
    return mean_outputs([_turned_back(forward([jnp.flip(x, turn) for x in inputs]), turn) for turn in axes])


def mean_outputs(outs: Sequence[Any]) -> Any:
    """The mean of each of a network's outputs over several answers; one answer stays as it is."""
    return outs[0] if len(outs) == 1 else jax.tree.map(lambda *parts: sum(parts) / len(parts), *outs)


def _turned_back(out: Any, turn: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: jnp.flip(x, turn) if turn and x.ndim == 4 else x, out)
