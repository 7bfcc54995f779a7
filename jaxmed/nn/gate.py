"""The adaptive gate of CSA-MoE-Net: how much each expert counts for a case."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.dropout import dropout
from jaxmed.nn.linear import Linear
from jaxmed.nn.norm import BatchNorm


class Gate(nnx.Module):
    """CSA-MoE-Net, II-D, eqs. 10 and 11: experts' features side by side -> 64 -> BN, ReLU, dropout -> softmax weights."""

    def __init__(
        self, dim: int, num_experts: int, *, hidden: int = 64, dropout: float = 0.2,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.rate = dropout
        self.fc1 = Linear(dim * num_experts, hidden, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(hidden, dtype=dtype)
        self.fc2 = Linear(hidden, num_experts, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: Sequence[Float[Array, "b d"]], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b d"], Float[Array, "b e"]]:
        """One feature per expert -> (their weighted sum, the weights), float32."""
        hidden = jax.nn.relu(self.norm(self.fc1(jnp.concatenate(features, -1)), train))
        scores = self.fc2(dropout(hidden, self.rate, train, rngs))
        weights = jax.nn.softmax(scores.astype(jnp.float32))
        fused = jnp.einsum("be,ebd->bd", weights, jnp.stack(features).astype(jnp.float32))
        return fused, weights
