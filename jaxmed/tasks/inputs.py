"""From the pipeline's bytes to a network's inputs, on the device, inside the jitted step."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

SMALLEST = 1e-5  # standard deviation that an image is divided by


def normalise(
    view: UInt[Array, "*b h w 1"], mean: Sequence[float], std: Sequence[float], channels: int = 3
) -> Float[Array, "*b h w c"]:
    """Gray levels (uint8 or uint16) -> [0, 1] -> `channels` equal channels -> (x - mean) / std per channel, float32.

    Masked views hold 0 outside their region, so the outside becomes (0 - mean) / std (CSA-MoE-Net specification, section 1).
    """
    gray = jnp.broadcast_to(view.astype(jnp.float32) / jnp.iinfo(view.dtype).max, (*view.shape[:-1], channels))
    axes = (1,) * (view.ndim - 1)
    return (gray - jnp.reshape(jnp.asarray(mean, jnp.float32), (*axes, channels))) / jnp.reshape(
        jnp.asarray(std, jnp.float32), (*axes, channels)
    )


def standardise(view: UInt[Array, "*b h w 1"]) -> Float[Array, "*b h w 1"]:
    """(x - mean) / max(std, 1e-5) with mean and standard deviation over all pixels of the image itself (GMIC), float32."""
    centred = view.astype(jnp.float32)
    centred = centred - _mean(centred)
    return centred / jnp.maximum(jnp.sqrt(_mean(jnp.square(centred))), SMALLEST)


def _mean(x: Float[Array, "*b h w c"]) -> Float[Array, "*b 1 1 c"]:
    """Rows first: one float32 sum over the millions of pixels of a mammogram would lose digits."""
    return jnp.mean(jnp.mean(x, -2, keepdims=True), -3, keepdims=True)
