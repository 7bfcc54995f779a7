"""Gated attention fusion of the views of a study (Hybrid CNN-VSSM for multi-view mammography, section 2.4, eqs. 8 to 10)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxmed.errors import UserError
from jaxmed.nn.dropout import dropout
from jaxmed.nn.linear import Linear


class ViewGate(nnx.Module):
    """One weight per view from all views together; the weighted views stay side by side.

    g = concat(v_1 .. v_n) (eq. 8), a = softmax(W2 relu(W1 g + b1) + b2) with W1 to `dim` and W2 to n numbers (eq. 9),
    f = concat(a_1 v_1 .. a_n v_n) (eq. 10). The weights sum to 1, so equal weights divide the features by n. `dropout` acts
    once, on f.

    The paper lets the features of a missing view's zero image take part. `mask_missing_views=True` gives missing views the
    logit -inf; a study of which every view is missing is then gated as if none were.
    """

    def __init__(
        self, dim: int, num_views: int = 4, *, dropout: float = 0.5, mask_missing_views: bool = False,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.rate, self.mask_missing_views = dropout, mask_missing_views
        self.fc1 = Linear(num_views * dim, dim, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(dim, num_views, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: Float[Array, "b v d"], present: Bool[Array, "b v"] | None = None, train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "b vd"], Float[Array, "b v"]]:
        """(fused feature, view weights), float32. `present` tells which views exist and is needed only for masking.

        Raises UserError when views are to be masked and `present` is None, or dropout has no randomness.
        """
        features = features.astype(jnp.float32)
        weights = jax.nn.softmax(self.logits(features, present))
        fused = (weights[..., None] * features).reshape(features.shape[0], -1)
        return dropout(fused, self.rate, train, rngs), weights

    def logits(self, features: Float[Array, "b v d"], present: Bool[Array, "b v"] | None) -> Float[Array, "b v"]:
        """The MLP of eq. 9 on the concatenation of eq. 8; -inf where a view is masked."""
        hidden = jax.nn.relu(self.fc1(features.reshape(features.shape[0], -1)))
        logits = self.fc2(hidden).astype(jnp.float32)
        if not self.mask_missing_views:
            return logits
        if present is None:
            raise UserError("mask_missing_views=True needs to know which views exist: call model(views, present=bool [b, 4])")
        present = jnp.asarray(present, bool)
        return jnp.where(present | ~jnp.any(present, -1, keepdims=True), logits, -jnp.inf)
