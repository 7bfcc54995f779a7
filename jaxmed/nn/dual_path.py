"""Channel and spatial attention side by side, from the encoder blocks of the decoder interaction network."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv, lax_conv
from jaxmed.nn.keras_defaults import KERAS_INIT
from jaxmed.nn.linear import Linear
from jaxmed.nn.pool import global_avg_pool


class DualPathAttention(nnx.Module):
    """X * c * s, both gates computed from X (in the released code and Fig. 1, not in the text).

    c = sigmoid(W2 relu(W1 mean_hw(X))) per channel, hidden max(8, C // 16);
    s = sigmoid(7x7 convolution of [max over channels, mean over channels]) per pixel.
    """

    def __init__(self, channels: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        hidden, shape = max(8, channels // 16), dict(**KERAS_INIT, dtype=dtype, rngs=rngs)
        self.fc1 = Linear(channels, hidden, **shape)
        self.fc2 = Linear(hidden, channels, **shape)
        self.spatial = Conv(2, 1, 7, padding=3, **shape)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channel = jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(global_avg_pool(x)))))
        summary = jnp.concatenate([jnp.max(x, -1, keepdims=True), jnp.mean(x, -1, keepdims=True)], -1)
        return x * channel[:, None, None, :].astype(x.dtype) * jax.nn.sigmoid(self._spatial(summary))

    def _spatial(self, summary: Float[Array, "b h w 2"]) -> Float[Array, "b h w 1"]:
        """XLA's convolution: from two channels to one its gradients are level on CPU and compile six times faster."""
        kernel, bias = (leaf.get_value().astype(summary.dtype) for leaf in (self.spatial.kernel, self.spatial.bias))
        return lax_conv(summary, kernel, (1, 1), (3, 3), (1, 1)) + bias.reshape(1, 1, 1, 1)
