"""Channels that become pixels."""

from jaxtyping import Array, Float


def depth_to_space(x: Float[Array, "b h w d"], scale: int) -> Float[Array, "b h2 w2 c"]:
    """Each position to scale x scale positions of d / scale^2 numbers; the channels are ordered (row, column, channel)."""
    (b, h, w, _), s = x.shape, scale
    return x.reshape(b, h, w, s, s, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, h * s, w * s, -1)
