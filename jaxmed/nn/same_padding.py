"""TensorFlow's SAME padding, which depends on the size of the map and is uneven at stride 2."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.nn.conv import Pair, pair


def pad_same(x: Float[Array, "b h w c"], kernel_size: Pair, stride: Pair, dilation: Pair = 1) -> Float[Array, "b h2 w2 c"]:
    """Zeros around `x` so that an unpadded window gives ceil(n / stride) outputs; an odd zero goes to the bottom or right."""
    windows = zip(x.shape[1:3], pair(kernel_size), pair(stride), pair(dilation), strict=True)
    totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in windows]
    return jnp.pad(x, ((0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)))
