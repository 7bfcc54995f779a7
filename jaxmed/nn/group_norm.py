"""Group normalisation (Wu and He 2018)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import ones, zeros


class GroupNorm(nnx.Module):
    """Each case and group of neighbouring channels is normalised over its part of the map; scale and bias [channels].

    As many groups as channels: instance normalisation. Statistics are float32 whatever `dtype` is.
    """

    def __init__(self, channels: int, groups: int, *, eps: float, dtype: jnp.dtype | str = jnp.float32):
        self.groups, self.eps, self.dtype = groups, eps, jnp.dtype(dtype)
        self.scale, self.bias = nnx.Param(ones(None, (channels,))), nnx.Param(zeros(None, (channels,)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        grouped = x.astype(jnp.float32).reshape(*x.shape[:3], self.groups, -1)
        grouped = grouped - jnp.mean(grouped, (1, 2, 4), keepdims=True)
        grouped = grouped * jax.lax.rsqrt(jnp.mean(jnp.square(grouped), (1, 2, 4), keepdims=True) + self.eps)
        scale, bias = (p.get_value().reshape(1, 1, 1, -1) for p in (self.scale, self.bias))
        return (grouped.reshape(x.shape) * scale + bias).astype(self.dtype)
