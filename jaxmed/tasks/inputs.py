"""From the pipeline's bytes to a network's inputs, on the device, inside the jitted step."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt


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
