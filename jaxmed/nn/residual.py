"""The stream that residual branches are added to."""

import jax
from flax import nnx
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float

from jaxmed.nn.drop_path import drop_path


def add_branch(
    x: Float[Array, "b *s"], branch: Float[Array, "b *s"], rate: float, train: bool, rngs: nnx.Rngs | None
) -> Float[Array, "b *s"]:
    """x + drop_path(branch), computed once."""
    return computed_once(x + drop_path(branch, rate, train, rngs))


@jax.custom_vjp
def computed_once(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`x`, whose value and gradient XLA on CPU must not compute anew inside each operation that reads them.

    Left alone it fuses the elementwise sum into every reader. The gradient of a residual stream is a sum over all later blocks,
    so time grows with the square of the depth: 5.0 s for the 18 blocks of Swin-B's third stage, batch 8, against 2.7 s as here.
    """
    return _once(x)


def _once(x: Array) -> Array:
    return jax.lax.platform_dependent(x, cpu=_call, default=lambda x: x)


def _call(x: Array) -> Array:
    with set_xla_metadata(inlineable="false"):  # optimization_barrier is gone by the time the CPU compiler fuses
        return jax.jit(lambda x: x * 1)(x)


computed_once.defvjp(lambda x: (_once(x), None), lambda _, g: (_once(g),))
