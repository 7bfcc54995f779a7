"""Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization")."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.explain.intercept import catching
from jaxmed.explain.layers import Layer

Scores = Callable[[Any], Float[Array, "t b"]]


def grad_cam(
    model: nnx.Module, inputs: Sequence[Array], layers: Sequence[Layer], scores: Scores, rngs: nnx.Rngs | None = None,
    **options: Any,
) -> tuple[Any, dict[str, Float[Array, "t n h w"]]]:
    """Heat maps of one forward pass, and one backward pass per score.

    Args:
        layers: made by `jaxmed.explain.layers.layers` for pictures of this size, any number of them.
        scores: the network's output -> t scores per case (class logits).
        rngs: for routers that are noisy in evaluation too; they stay as they are.
        options: further arguments of the model, such as train=False.

    Returns:
        (the network's output, {name of the layer: maps as eq. 2 leaves them, float32, n = b times the layer's maps per case}).
    """

    def run(slots: dict) -> tuple[Array, Any]:
        with catching(model, slots):
            copied = {} if rngs is None else {"rngs": nnx.clone(rngs)}  # counters must belong to the trace that moves them
            out = model(*inputs, **options, **copied)
        return jnp.sum(scores(out), 1), out  # cases do not depend on each other, so the sum gives each its own gradient

    slots = {layer.name: layer.slot(len(inputs[0])) for layer in layers}
    totals, pull_back, out = jax.vjp(run, slots, has_aux=True)
    parts: dict[str, list[Array]] = {layer.name: [] for layer in layers}
    for target in range(len(totals)):
        (caught,) = pull_back(jnp.zeros_like(totals).at[target].set(1))
        for layer in layers:
            gradient, activation = (layer.as_map(x) for x in caught[layer.name])
            parts[layer.name].append(heat(activation, gradient))
    return out, {name: jnp.stack(maps) for name, maps in parts.items()}


def heat(activation: Float[Array, "b h w c"], gradient: Float[Array, "b h w c"]) -> Float[Array, "b h w"]:
    """Eqs. 1 and 2: channels weighted by their mean gradient, summed, negative parts cut off. float32."""
    weights = jnp.mean(gradient.astype(jnp.float32), (1, 2))
    return jax.nn.relu(jnp.einsum("bhwc,bc->bhw", activation.astype(jnp.float32), weights))


def relative(heat: Float[Array, "*b h w"]) -> tuple[Float[Array, "*b h w"], Float[Array, "*b"]]:
    """(each map divided by its maximum, the maxima). A map without any heat stays zero: its maximum is 0."""
    peak = jnp.max(heat, (-2, -1))
    return heat / jnp.where(peak > 0, peak, 1.0)[..., None, None], peak


def class_scores(logits: Float[Array, "b k"], classes: Array) -> Float[Array, " b"]:
    """The logit of each case's class, int [b]; -1 is the class with the largest one."""
    chosen = jnp.where(classes < 0, jnp.argmax(logits, -1), classes)
    return jnp.take_along_axis(logits, chosen[:, None], -1)[:, 0]
