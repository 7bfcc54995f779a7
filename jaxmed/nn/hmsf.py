"""Hierarchical multi-scale fusion of the decoder interaction network: every image weighs three receptive fields."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.keras_defaults import KERAS_INIT
from jaxmed.nn.linear import Linear
from jaxmed.nn.pool import global_avg_pool
from jaxmed.nn.separable import SeparableConv

DILATIONS = (1, 2, 4)  # effective fields of 3, 5 and 9 pixels


class HMSF(nnx.Module):
    """Decoder interaction paper, section 2.3, eqs. 9 and 10, as in the released code (no skip, activation or norm inside).

    F_i = separable convolution of X with dilation 1, 2, 4; a = softmax(W2 relu(W1 mean(X))), hidden C // 8;
    Y = 1x1 convolution of sum_i a_i F_i.
    """

    def __init__(self, channels: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        shape = dict(dtype=dtype, rngs=rngs)
        self.branches = nnx.List([SeparableConv(channels, channels, dilation=d, **shape) for d in DILATIONS])
        self.fc1 = Linear(channels, channels // 8, **KERAS_INIT, **shape)
        self.fc2 = Linear(channels // 8, len(DILATIONS), **KERAS_INIT, **shape)
        self.fusion = Conv(channels, channels, 1, **KERAS_INIT, **shape)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        weights = self.weights(x).astype(x.dtype)
        parts = [branch(x) * weights[:, i].reshape(-1, 1, 1, 1) for i, branch in enumerate(self.branches)]
        return self.fusion(sum(parts))

    def weights(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 3"]:
        """How much each dilation counts for each image, float32."""
        hidden = jax.nn.relu(self.fc1(global_avg_pool(x)))
        return jax.nn.softmax(self.fc2(hidden).astype(jnp.float32))
