"""Normalisation with torch's constants."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxmed.errors import UserError
from jaxmed.nn.init import ones, zeros

_ROWS: ContextVar[Array | None] = ContextVar("rows whose statistics batch norms take", default=None)


@contextlib.contextmanager
def statistics_of(rows: Bool[Array, " b"] | None) -> Iterator[None]:
    """Inside, training batch norms take mean and variance from these rows of their batch alone; all rows are normalised.

    For images that are not there but have a place in the batch. None: all rows. Where the rows have fewer than two values per
    channel, norms use their running statistics and leave them as they are. A context, because the norms lie deep inside
    encoders that know nothing of missing images.
    """
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


class BatchNorm(nnx.Module):
    """Batch normalisation over every axis but the last; eps 1e-5, running average 0.9 * old + 0.1 * new (torch momentum 0.1).

    Leaves scale, bias (nnx.Param), mean, var (nnx.BatchStat), each [channels]. Statistics are float32 whatever `dtype` is.
    As in torch the batch is normalised by the biased variance and the running variance takes the unbiased one.
    Over a batch sharded across devices the statistics are those of the global batch (synchronised).
    """

    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.9, dtype: jnp.dtype | str = jnp.float32
    ):
        self.eps, self.momentum, self.dtype = eps, momentum, jnp.dtype(dtype)
        self.scale, self.bias = nnx.Param(ones(None, (channels,))), nnx.Param(zeros(None, (channels,)))
        self.mean, self.var = nnx.BatchStat(zeros(None, (channels,))), nnx.BatchStat(ones(None, (channels,)))

    def __call__(self, x: Float[Array, "*b c"], train: bool = False) -> Float[Array, "*b c"]:
        mean, var = self._batch_statistics(x) if train else (self.mean.get_value(), self.var.get_value())
        factor = jax.lax.rsqrt(var + self.eps) * self.scale.get_value()
        shift = self.bias.get_value() - mean * factor
        wide = (1,) * (x.ndim - 1) + (-1,)
        return (x * factor.reshape(wide) + shift.reshape(wide)).astype(self.dtype)

    def _batch_statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and biased variance of this batch; folds them into the running ones."""
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        if count < 2:
            raise UserError("BatchNorm has one value per channel and cannot train on it: use a batch of 2 or more")
        x = x.astype(jnp.float32)
        if (rows := _ROWS.get()) is None:
            mean, square = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
        else:
            weight = rows.astype(jnp.float32).reshape(-1, *(1,) * (x.ndim - 1))
            seen = jnp.sum(weight) * (count / len(x))
            count = jnp.maximum(seen, 2.0)
            mean, square = jnp.sum(x * weight, axes) / count, jnp.sum(jnp.square(x) * weight, axes) / count
        var = jnp.maximum(square - jnp.square(mean), 0.0)
        unbiased = var * (count / (count - 1))
        if rows is not None:  # below two values the running statistics serve, and stay
            mean = jnp.where(seen > 1, mean, self.mean.get_value())
            var, unbiased = (jnp.where(seen > 1, new, self.var.get_value()) for new in (var, unbiased))
        self._update(self.mean, mean)
        self._update(self.var, unbiased)
        return mean, var

    def _update(self, running: nnx.BatchStat, new: Array) -> None:
        old = running.get_value()
        running.set_value(self.momentum * old + (1 - self.momentum) * jax.lax.stop_gradient(new))


class LayerNorm(nnx.Module):
    """Normalisation over the last axis with scale and bias; `eps` differs between networks, so it has no default.

    Statistics are float32 whatever `dtype` is.
    """

    def __init__(self, channels: int, *, eps: float, dtype: jnp.dtype | str = jnp.float32):
        self.eps, self.dtype = eps, jnp.dtype(dtype)
        self.scale, self.bias = nnx.Param(ones(None, (channels,))), nnx.Param(zeros(None, (channels,)))

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps)
        wide = (1,) * (x.ndim - 1) + (-1,)
        return (x * self.scale.get_value().reshape(wide) + self.bias.get_value().reshape(wide)).astype(self.dtype)
