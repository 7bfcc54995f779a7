"""Convolution with weight standardisation (Qiao et al. 2019)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv

EPS = 1e-5


class StandardConv(Conv):
    """A convolution whose kernel has mean 0 and variance 1 (biased, plus 1e-5) over the inputs of each output channel."""

    def weight(self) -> Float[Array, "kh kw i o"]:
        """The standardised kernel."""
        kernel = super().weight()
        kernel = kernel - jnp.mean(kernel, (0, 1, 2), keepdims=True)
        return kernel * jax.lax.rsqrt(jnp.mean(jnp.square(kernel), (0, 1, 2), keepdims=True) + EPS)
