"""Uncertainty proxy attention: feature variance decides how much of the task interaction is taken over."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn.init import zeros
from jaxmed.nn.keras_defaults import KERAS_INIT
from jaxmed.nn.linear import Linear

HIDDEN = 32
EPS = 1e-8
NORMS = ("ema", "batch")


class UncertaintyProxyAttention(nnx.Module):
    """UPA (decoder interaction paper, section 2.2, eqs. 6 to 8).

    (6) u = [mean_c Var_hw(D'), Var(f')], divided by its mean over the batch; (7) w = softmax(W2 relu(W1 u));
    (8) D + w_s (D' - D) and f + w_c (f' - f).

    norm: how u is divided when evaluating. "batch" (the released code) by the mean of the batch at hand, so that a prediction
    depends on the cases beside it and u is 1 for a case alone. "ema" by the running mean of the training batches, kept in
    nnx.BatchStat `total` and `weight` (mean = total / weight, which has no bias from its start; 1 before any training).
    Training divides by the batch mean either way, gradient included. Raises UserError for another word.
    """

    def __init__(
        self, *, norm: str = "ema", momentum: float = 0.99, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        if norm not in NORMS:
            raise UserError(f"upa_norm={norm!r} is neither 'ema' (cases do not influence each other) nor 'batch'")
        self.momentum = momentum
        if norm == "ema":
            self.total, self.weight = nnx.BatchStat(zeros(None, (2,))), nnx.BatchStat(zeros(None, (2,)))
        self.fc1 = Linear(2, HIDDEN, **KERAS_INIT, rngs=rngs)
        self.fc2 = Linear(HIDDEN, 2, **KERAS_INIT, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], enhanced: Float[Array, "b h w c"], f: Float[Array, "b d"],
        f_enhanced: Float[Array, "b d"], train: bool = False,
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b d"], Float[Array, "b 2"]]:
        """(blended map, blended class feature, [w_s, w_c] of each case)."""
        u = uncertainty(enhanced, f_enhanced)
        u = u / (self.scale(u, train).reshape(1, 2) + EPS)
        weights = jax.nn.softmax(self.fc2(jax.nn.relu(self.fc1(u))))
        of_map, of_class = weights[:, 0].astype(x.dtype).reshape(-1, 1, 1, 1), weights[:, 1].reshape(-1, 1)
        return x + of_map * (enhanced - x), f + of_class * (f_enhanced - f), weights

    def scale(self, u: Float[Array, "b 2"], train: bool) -> Float[Array, "2"]:
        """What u is divided by; training folds the batch's mean into the running one."""
        mean = jnp.mean(u, 0)
        if not hasattr(self, "total"):
            return mean
        if train:
            self._update(self.total, mean)
            self._update(self.weight, jnp.ones(2))
            return mean
        total, weight = self.total.get_value(), self.weight.get_value()
        return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 1.0)

    def _update(self, running: nnx.BatchStat, new: Array) -> None:
        running.set_value(self.momentum * running.get_value() + (1 - self.momentum) * jax.lax.stop_gradient(new))


def uncertainty(x: Float[Array, "b h w c"], f: Float[Array, "b d"]) -> Float[Array, "b 2"]:
    """Eq. 6: the variance over pixels, averaged over channels, and the variance of the class feature; float32, biased."""
    x, f = x.astype(jnp.float32), f.astype(jnp.float32)
    return jnp.stack([jnp.mean(jnp.var(x, (1, 2)), -1), jnp.var(f, -1)], -1)
