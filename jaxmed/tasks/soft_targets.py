"""Cross-entropy against targets that are distributions over the classes: mixed and smoothed labels."""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def smooth(targets: Float[Array, "b classes"], smoothing: float) -> Float[Array, "b classes"]:
    """(1 - s) t + s / classes for rows that sum to 1 (Szegedy et al. 2016); rows of zeros (label not known) stay zeros."""
    total = jnp.sum(targets, -1, keepdims=True)
    return (1.0 - smoothing) * targets + smoothing / targets.shape[-1] * total


def soft_losses(out: Mapping[str, Array], targets: Float[Array, "b classes"]) -> Float[Array, " b"]:
    """Cross-entropy of each case, float32; rows of zeros count 0.

    The members of an ensemble (`member_logits` [b, members, classes]) each learn from their own: the sum of theirs.
    """
    logits = out["member_logits"] if "member_logits" in out else out["logits"][:, None]
    each = jnp.broadcast_to(targets[:, None].astype(jnp.float32), logits.shape)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), each).sum(1)


def soft_loss(out: Mapping[str, Array], targets: Float[Array, "b classes"], weight: Float[Array, " b"]) -> Float[Array, ""]:
    """Mean of `soft_losses` over the cases, by `weight` (0 for padding)."""
    return jnp.sum(soft_losses(out, targets) * weight) / jnp.maximum(jnp.sum(weight), 1.0)
