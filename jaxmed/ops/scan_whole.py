"""The selective scan without chunks, differentiated by JAX: the oracle, and the textbook's parallel form."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops.scan_inputs import ScanInputs, decay, entry, read, state_dtype, step_size


def sequential_scan(inputs: ScanInputs, softplus: bool, reverse: bool) -> Float[Array, "b l g p"]:
    """Token after token; the backward pass keeps every state."""
    inputs = _widened(inputs)

    def step(h: Array, token: tuple[Array, ...]) -> tuple[Array, Array]:
        u, dt, B, C = token
        h = decay(dt, inputs.A) * h + entry(dt, u, B)
        return h, read(C, h)

    dt = step_size(inputs.delta, inputs.bias, softplus)
    tokens = tuple(jnp.moveaxis(x, 1, 0) for x in (inputs.u, dt, inputs.B, inputs.C))
    start = jnp.zeros((inputs.u.shape[0], *inputs.A.shape), inputs.A.dtype)
    return jnp.moveaxis(jax.lax.scan(step, start, tokens, reverse=reverse)[1], 0, 1)


def associative_scan(inputs: ScanInputs, softplus: bool, reverse: bool) -> Float[Array, "b l g p"]:
    """All tokens at once, in log2(l) rounds."""
    inputs = _widened(inputs)
    dt = step_size(inputs.delta, inputs.bias, softplus)
    maps = decay(dt, inputs.A), entry(dt, inputs.u, inputs.B)
    return read(inputs.C, jax.lax.associative_scan(compose, maps, reverse=reverse, axis=1)[1])


def compose(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
    """Two maps h -> a h + x, given as pairs (a, x), as one."""
    return then[0] * first[0], then[0] * first[1] + then[1]


def _widened(inputs: ScanInputs) -> ScanInputs:
    return ScanInputs(*(x.astype(state_dtype(*inputs)) for x in inputs))
