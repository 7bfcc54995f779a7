"""Object-contextual representations: pixels take up what the regions around them look like (Yuan, Chen, Wang, ECCV 2020)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv_norm import ConvNorm


def gather_regions(x: Float[Array, "b h w c"], region_logits: Float[Array, "b h w k"]) -> Float[Array, "b k c"]:
    """The mean of the map over each soft region, weights a softmax over the pixels; float32."""
    weights = jax.nn.softmax(region_logits.astype(jnp.float32), (1, 2))
    return jnp.einsum("bhwk,bhwc->bkc", weights, x, preferred_element_type=jnp.float32)


class ObjectContext(nnx.Module):
    """w_ik = softmax over k of phi(x_i) . psi(f_k) / sqrt(key_dim); y_i = rho(sum_k w_ik delta(f_k)); join([x_i, y_i]).

    For pixels x_i and regions f_k (section 3.2; the division is the released code's). Every transform is a 1x1 ConvNorm.
    """

    def __init__(self, channels: int, key_dim: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        def conv(inside: int, outside: int) -> ConvNorm:
            return ConvNorm(inside, outside, 1, dtype=dtype, rngs=rngs)

        self.key_dim = key_dim
        self.phi, self.psi = conv(channels, key_dim), conv(channels, key_dim)
        self.delta, self.rho, self.join = conv(channels, channels), conv(channels, channels), conv(2 * channels, channels)

    def __call__(
        self, x: Float[Array, "b h w c"], regions: Float[Array, "b k c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        regions = regions[:, :, None]
        keys, values = self.psi(regions, train)[:, :, 0], self.delta(regions, train)[:, :, 0]
        scores = jnp.einsum("bhwd,bkd->bhwk", self.phi(x, train), keys, preferred_element_type=jnp.float32)
        relation = jax.nn.softmax(scores * self.key_dim**-0.5).astype(values.dtype)
        context = self.rho(jnp.einsum("bhwk,bkc->bhwc", relation, values), train)
        return self.join(jnp.concatenate([x, context], -1), train)
