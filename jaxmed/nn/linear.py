"""Fully connected layer with torch's initialisation."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import Initializer, torch_uniform


class Linear(nnx.Module):
    """x @ kernel + bias over the last axis; kernel [in, out], optional bias [out]; parameters float32, computes in `dtype`."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.dtype = jnp.dtype(dtype)
        default = torch_uniform(in_features)
        self.kernel = nnx.Param((kernel_init or default)(rngs.params(), (in_features, out_features)))
        if bias:
            self.bias = nnx.Param((bias_init or default)(rngs.params(), (out_features,)))

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        y = jnp.dot(x.astype(self.dtype), self.kernel.get_value().astype(self.dtype))
        if hasattr(self, "bias"):
            y = y + self.bias.get_value().astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y
