"""Gradients that store the inputs of a block and nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


def recomputed(run: Callable, block: nnx.Module, *inputs: Array, rngs: nnx.Rngs | None) -> Array:
    """run(block, *inputs, rngs), whose inner values the backward pass computes anew. Only float inputs have a gradient.

    jax.checkpoint is not enough on CPU: the compiler drops its barrier and computes all blocks anew before the backward pass
    begins, which takes more memory than storing. Here a block's inputs pass through a call together with the gradient of its
    output, so that they are not there any sooner.
    """
    graph, state = nnx.split(block)
    key = None if rngs is None else rngs.dropout()

    def call(state, inputs, key):
        return run(nnx.merge(graph, state), *inputs, None if key is None else nnx.Rngs(dropout=key))

    def backward(saved, gradient):
        (state, inputs, key), gradient = _together(saved, gradient)
        which = [i for i, x in enumerate(inputs) if _differentiable(x)]

        def of_floats(state, *floats):
            given = dict(zip(which, floats, strict=True))
            return call(state, tuple(given.get(i, x) for i, x in enumerate(inputs)), key)

        of_state, *of_inputs = jax.vjp(of_floats, state, *(inputs[i] for i in which))[1](gradient)
        found = dict(zip(which, of_inputs, strict=True))
        return of_state, tuple(found.get(i) for i in range(len(inputs))), None

    lean = jax.custom_vjp(call)
    lean.defvjp(lambda *saved: (call(*saved), saved), backward)
    return lean(state, inputs, key)


def _together(saved: Any, gradient: Array) -> tuple[Any, Array]:
    """Both as they are, each only once the other is computed."""
    leaves, tree = jax.tree.flatten((saved, gradient))
    which = [i for i, x in enumerate(leaves) if _differentiable(x)]
    floats = [leaves[i] for i in which]
    held = jax.lax.platform_dependent(*floats, cpu=_call, default=lambda *x: jax.lax.optimization_barrier(x))
    for i, x in zip(which, held, strict=True):
        leaves[i] = x
    return jax.tree.unflatten(tree, leaves)


def _differentiable(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _call(*x: Array) -> tuple[Array, ...]:
    with set_xla_metadata(inlineable="false"):
        return jax.jit(lambda *x: tuple(y * 1 for y in x))(*x)
