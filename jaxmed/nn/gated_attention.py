"""Attention over the instances of a bag (Ilse, Tomczak, Welling 2018, "Attention-based Deep Multiple Instance Learning")."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.linear import Linear


class GatedAttention(nnx.Module):
    """Eq. 9 without biases: weight_k = softmax_k(w^T (tanh(V h_k) * sigmoid(U h_k))).

    Gives (sum_k weight_k h_k, the weights), float32.
    """

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        shape = dict(bias=False, dtype=dtype, rngs=rngs)
        self.V, self.U = Linear(dim, hidden, **shape), Linear(dim, hidden, **shape)
        self.w = Linear(hidden, 1, **shape)

    def __call__(self, h: Float[Array, "b k d"]) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
        scores = self.w(jnp.tanh(self.V(h)) * jax.nn.sigmoid(self.U(h)))[..., 0]
        weights = jax.nn.softmax(scores.astype(jnp.float32))
        return jnp.einsum("bk,bkd->bd", weights, h.astype(jnp.float32)), weights
