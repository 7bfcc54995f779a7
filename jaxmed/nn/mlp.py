"""The two-layer network of transformer blocks."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import TRANSFORMER_INIT
from jaxmed.nn.linear import Linear


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """x times the normal distribution function: the exact form (erf), not the tanh approximation that is JAX's default."""
    return jax.nn.gelu(x, approximate=False)


class Mlp(nnx.Module):
    """dim -> hidden, exact GELU, hidden -> dim, over the last axis; weights N(0, 0.02) cut at 2, biases 0."""

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        options = TRANSFORMER_INIT | dict(dtype=dtype, rngs=rngs)
        self.fc1 = Linear(dim, hidden, **options)
        self.fc2 = Linear(hidden, dim, **options)

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.fc2(gelu(self.fc1(x)))
