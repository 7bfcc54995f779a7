"""The selective scan in chunks: between forward and backward pass only the state before each chunk is kept.

Gradients by hand. With v the gradient of y and g that of h, walking against the scan's direction:
    g_l = C_l v_l + r_{l+1},   r_l = a_l g_l,   a_l = exp(dt_l A),   p_l = a_l h_{l-1}
    du_l = dt_l <B_l, g_l>        d(dt)_l = u_l <B_l, g_l> + <A, p_l g_l>      dA = sum over l of dt_l p_l g_l
    dB_l = sum over channels of dt_l u_l g_l        dC_l = sum over channels of v_l h_l
r, the gradient that a token hands to the one before, is carried instead of g, so that nothing is shifted by one token. Nothing is
divided by a, which underflows.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops import scan_by_step, scan_by_tree
from jaxmed.ops.scan_inputs import ScanInputs, state_dtype, step_size

STEP_LENGTH, STEP_SHORTEST, STEP_BYTES = 64, 32, 8e6  # CPU: the states of a chunk should stay in the cache
TREE_BYTES = 128e6  # elsewhere: the states of a chunk, of which the backward pass holds about 14 times as much


class Chunks(NamedTuple):
    """length: tokens per chunk. forward, backward: how one chunk is scanned."""

    length: int
    forward: Callable
    backward: Callable
    softplus: bool
    reverse: bool


def chunked_scan(inputs: ScanInputs, softplus: bool, reverse: bool) -> Float[Array, "b l g p"]:
    """Token after token in chunks of 64 on CPU; elsewhere an associative scan inside each chunk, in as few chunks as fit."""
    flags = dict(softplus=softplus, reverse=reverse)
    step = Chunks(step_length(inputs), scan_by_step.forward, scan_by_step.backward, **flags)
    tree = Chunks(tree_length(inputs), scan_by_tree.forward, scan_by_tree.backward, **flags)
    return jax.lax.platform_dependent(
        *inputs, cpu=functools.partial(scan_in_chunks, step), default=functools.partial(scan_in_chunks, tree)
    )


def step_length(inputs: ScanInputs) -> int:
    """64 tokens, 32 where the states of 64 exceed 8 MB."""
    length = STEP_LENGTH
    while length > STEP_SHORTEST and length * _token_bytes(inputs) > STEP_BYTES:
        length //= 2
    return _even(inputs.u.shape[1], length)


def tree_length(inputs: ScanInputs) -> int:
    """As many tokens as have 128 MB of states."""
    return _even(inputs.u.shape[1], max(1, int(TREE_BYTES // _token_bytes(inputs))))


def _token_bytes(inputs: ScanInputs) -> int:
    batch = inputs.u.shape[0]
    return 4 * inputs.A.size * (batch if isinstance(batch, int) else 1)  # an exported program may leave the batch open


def _even(total: int, length: int) -> int:
    """At most `length` such that the chunks are nearly full."""
    return -(-total // -(-total // length))


def scan_in_chunks(
    chunks: Chunks, u: Array, delta: Array, A: Array, B: Array, C: Array, bias: Array
) -> Float[Array, "b l g p"]:
    """The scan with these chunks."""
    return _scan(chunks, ScanInputs(u, delta, A, B, C, bias))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(chunks: Chunks, inputs: ScanInputs) -> Array:
    return _forward(chunks, inputs)[0]


def _forward(chunks: Chunks, inputs: ScanInputs) -> tuple[Array, tuple[ScanInputs, Array]]:
    A, bias = (x.astype(state_dtype(inputs)) for x in (inputs.A, inputs.bias))

    def chunk(h: Array, tokens: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        u, delta, B, C = (x.astype(A.dtype) for x in tokens)
        after, y = chunks.forward(h, A, (u, step_size(delta, bias, chunks.softplus), B, C), chunks.reverse)
        return after, (y, h)

    start = jnp.zeros((inputs.u.shape[0], *A.shape), A.dtype)
    tokens = tuple(_split(x, chunks.length) for x in (inputs.u, inputs.delta, inputs.B, inputs.C))
    _, (y, states) = jax.lax.scan(chunk, start, tokens, reverse=chunks.reverse)
    return _join(y, inputs.u.shape[1]), (inputs, states)


def _backward(chunks: Chunks, residuals: tuple[ScanInputs, Array], v: Array) -> tuple[ScanInputs]:
    inputs, states = residuals
    A, bias = (x.astype(state_dtype(inputs)) for x in (inputs.A, inputs.bias))

    def chunk(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        tokens, v, h = xs
        u, delta, B, C = (x.astype(A.dtype) for x in tokens)
        dt, pull = jax.vjp(lambda delta: step_size(delta, bias, chunks.softplus), delta)
        carry, (du, ddt, dB, dC) = chunks.backward(h, carry, A, (u, dt, B, C), v, chunks.reverse)
        return carry, tuple(g.astype(x.dtype) for g, x in zip((du, *pull(ddt), dB, dC), tokens, strict=True))

    tokens = tuple(_split(x, chunks.length) for x in (inputs.u, inputs.delta, inputs.B, inputs.C))
    start = jnp.zeros(states.shape[1:], A.dtype)
    xs = tokens, _split(v, chunks.length), states
    (_, dA), gradients = jax.lax.scan(chunk, (start, start), xs, reverse=not chunks.reverse)
    du, ddelta, dB, dC = (_join(x, inputs.u.shape[1]) for x in gradients)
    dA, dbias = jnp.sum(dA, 0), jnp.sum(ddelta, (0, 1), dtype=A.dtype)
    return (ScanInputs(du, ddelta, dA.astype(inputs.A.dtype), dB, dC, dbias.astype(inputs.bias.dtype)),)


_scan.defvjp(_forward, _backward)


def _split(x: Float[Array, "b l g k"], length: int) -> Float[Array, "c t b g k"]:
    """Chunks of tokens first. Zeros fill the last one: with u = 0 and C = 0 they change neither state nor gradient."""
    b, total, *rest = x.shape
    x = jnp.pad(x, ((0, 0), (0, -total % length), (0, 0), (0, 0)))
    return jnp.transpose(x.reshape(b, -(-total // length), length, *rest), (1, 2, 0, 3, 4))


def _join(x: Float[Array, "c t b g k"], total: int) -> Float[Array, "b l g k"]:
    """The inverse of `_split`."""
    x = jnp.transpose(x, (2, 0, 1, 3, 4))
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :total]
