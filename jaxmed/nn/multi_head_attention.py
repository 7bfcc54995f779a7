"""Multi-head attention of one sequence on another, with torch's parameters (nn.MultiheadAttention)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn.init import TRANSFORMER_INIT, draw, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.long_attention import attend_long


def xavier_uniform(key: jax.Array, shape: tuple[int, int], groups: int = 1) -> jax.Array:
    """Uniform in +-sqrt(6 / (in + out)) (Glorot and Bengio 2010)."""
    bound = (6.0 / sum(shape)) ** 0.5
    return draw(jax.random.uniform, key, shape, minval=-bound, maxval=bound)


class MultiHeadAttention(nnx.Module):
    """Queries from `x`, keys and values from `context` (from `x` itself where None): one kernel [d, 3 d], q, k, v side by side.

    `in_proj` starts Xavier-uniform over its whole [d, 3 d] with zero biases, as torch's does; `out_proj` normal, 0.02.
    Raises UserError where the heads do not divide the width.
    """

    def __init__(self, dim: int, num_heads: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        if dim % num_heads:
            raise UserError(f"{num_heads} attention heads do not divide {dim} channels; set num_heads or projector_num_heads")
        self.dim, self.num_heads = dim, num_heads
        self.in_proj = Linear(dim, 3 * dim, kernel_init=xavier_uniform, bias_init=zeros, dtype=dtype, rngs=rngs)
        self.out_proj = Linear(dim, dim, **TRANSFORMER_INIT, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b t d"], context: Float[Array, "b s d"] | None = None
    ) -> Float[Array, "b t d"]:
        context = x if context is None else context
        return self.out_proj(attend_long(*(self._project(y, i) for i, y in enumerate((x, context, context)))))

    def weights(self, x: Float[Array, "b t d"], context: Float[Array, "b s d"]) -> Float[Array, "b t s"]:
        """Attention of each query on each context token, mean over the heads, float32; the rows sum to 1."""
        q, k = self._project(x, 0), self._project(context, 1)
        scores = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        return jnp.mean(jax.nn.softmax(scores), 1)

    def _project(self, x: Float[Array, "b t d"], which: int) -> Float[Array, "b t h k"]:
        """Query (0), key (1) or value (2), cut into heads."""
        part, dtype = slice(which * self.dim, (which + 1) * self.dim), self.in_proj.dtype
        kernel, bias = (p.get_value()[..., part].astype(dtype) for p in (self.in_proj.kernel, self.in_proj.bias))
        y = jnp.dot(x.astype(dtype), kernel) + bias.reshape(1, 1, -1)
        return y.reshape(*y.shape[:2], self.num_heads, -1)
