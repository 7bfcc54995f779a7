"""The selective scan in chunks: between forward and backward pass only the state before each chunk is kept.

A row is a block of channels of one image: inputs [l, p], state [n, p]. CPUs take row after row, token after token, with blocks so
narrow that XLA leaves a token's update to one thread; wider updates it splits over its threads, which then wait for each other at
every token. Rows of 96 or 128 channels with n = 16, against all channels at once, forward + backward on two busy cores: 21 ms
against 163 for (b, l, d) = (4, 1024, 96), 93 against 732 for (8, 256, 512). Other devices take all rows at once, and associative
scans inside a chunk.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops import scan_by_step, scan_by_tree
from jaxmed.ops.scan_inputs import ScanInputs, state_dtype, step_size

STEP_TOKENS, STEP_STATE = 64, 2048  # CPU: tokens per chunk (32 to 256 measure the same); numbers in the state of a row
TREE_BYTES = 128e6  # elsewhere: the states of a chunk; its backward pass holds about 14 times as much


class Plan(NamedTuple):
    """How to scan. tokens: per chunk, at most. one_by_one: row after row, else all at once. forward, backward: of one chunk."""

    tokens: int
    one_by_one: bool
    forward: Callable
    backward: Callable
    softplus: bool
    reverse: bool


class Rows(NamedTuple):
    """ScanInputs with each group's channels in k blocks of p, tokens inside."""

    u: Float[Array, "b g k l p"]
    delta: Float[Array, "b g k l p"]
    A: Float[Array, "g k n p"]
    B: Float[Array, "b g l n"]
    C: Float[Array, "b g l n"]
    bias: Float[Array, "g k p"]


def chunked_scan(inputs: ScanInputs, softplus: bool, reverse: bool) -> Float[Array, "b l g p"]:
    """The scan as the device at hand prefers it. Of a batch that is sharded over several CPU devices each device scans all rows."""
    flags = dict(softplus=softplus, reverse=reverse)
    by_step = Plan(STEP_TOKENS, True, scan_by_step.forward, scan_by_step.backward, **flags)
    by_tree = Plan(tree_tokens(inputs), False, scan_by_tree.forward, scan_by_tree.backward, **flags)
    return jax.lax.platform_dependent(
        *inputs, cpu=functools.partial(planned_scan, by_step), default=functools.partial(planned_scan, by_tree)
    )


def tree_tokens(inputs: ScanInputs) -> int:
    """As many tokens as have 128 MB of states."""
    batch = inputs.u.shape[0]
    batch = batch if isinstance(batch, int) else 1  # an exported program may leave the batch open
    return max(1, int(TREE_BYTES // (4 * inputs.A.size * batch)))


def planned_scan(plan: Plan, *inputs: Array) -> Float[Array, "b l g p"]:
    """The scan as planned."""
    b, length, g, p = inputs[0].shape
    blocks = -(-p * inputs[2].shape[1] // STEP_STATE) if plan.one_by_one else 1
    y = _scan(plan, _rows(ScanInputs(*inputs), blocks))
    return jnp.transpose(y, (0, 3, 1, 2, 4)).reshape(b, length, g, -1)[..., :p]


def _rows(inputs: ScanInputs, k: int) -> Rows:
    def blocks(x: Array) -> Array:
        p = x.shape[-1]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -p % k)])
        return x.reshape(*x.shape[:-1], k, -1)

    u, delta = (jnp.transpose(blocks(x), (0, 2, 3, 1, 4)) for x in (inputs.u, inputs.delta))
    B, C = (jnp.swapaxes(x, 1, 2) for x in (inputs.B, inputs.C))
    return Rows(u, delta, jnp.swapaxes(blocks(inputs.A), 1, 2), B, C, blocks(inputs.bias))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, rows: Rows) -> Float[Array, "b g k l p"]:
    return _forward(plan, rows)[0]


def _forward(plan: Plan, rows: Rows) -> tuple[Array, tuple[Rows, Array]]:
    y, states = _each_row(plan, functools.partial(_row, plan), *rows)
    return y, (rows, states)


def _backward(plan: Plan, residuals: tuple[Rows, Array], v: Array) -> tuple[Rows]:
    rows, states = residuals
    du, ddelta, dA, dB, dC, dbias = _each_row(plan, functools.partial(_row_gradients, plan), *rows, states, v)
    grads = Rows(du, ddelta, jnp.sum(dA, 0), jnp.sum(dB, 2), jnp.sum(dC, 2), jnp.sum(dbias, 0))
    return (Rows(*(g.astype(x.dtype) for g, x in zip(grads, rows, strict=True))),)


_scan.defvjp(_forward, _backward)


def _each_row(plan: Plan, of_row: Callable, *args: Array) -> tuple[Array, ...]:
    """`of_row` over images, groups and blocks; results start with [b, g, k]. args: as Rows, then any with all three axes."""
    rest = (True,) * (len(args) - len(Rows._fields))
    images = (True, True, False, True, True, False, *rest)
    groups = (True,) * len(args)
    blocks = (True, True, True, False, False, True, *rest)
    for axis in (blocks, groups, images):
        of_row = (_one_by_one if plan.one_by_one else _at_once)(of_row, axis)
    return of_row(*args)


def _at_once(function: Callable, axis: tuple[bool, ...]) -> Callable:
    return jax.vmap(function, in_axes=tuple(0 if has else None for has in axis))


def _one_by_one(function: Callable, axis: tuple[bool, ...]) -> Callable:
    def mapped(*args: Array) -> tuple[Array, ...]:
        def call(row: tuple[Array, ...]) -> tuple[Array, ...]:
            row = iter(row)
            return function(*(next(row) if has else x for x, has in zip(args, axis, strict=True)))

        return jax.lax.map(call, tuple(x for x, has in zip(args, axis, strict=True) if has))

    return mapped


def _row(plan: Plan, u: Array, delta: Array, A: Array, B: Array, C: Array, bias: Array) -> tuple[Array, Array]:
    """(y [l, p], the state before each chunk [c, n, p])."""
    A, bias = (x.astype(state_dtype(u, delta, A, B, C, bias)) for x in (A, bias))

    def chunk(h: Array, tokens: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        u, delta, B, C = (x.astype(A.dtype) for x in tokens)
        after, y = plan.forward(h, A, (u, step_size(delta, bias, plan.softplus), B, C), plan.reverse)
        return after, (y, h)

    tokens = tuple(_split(x, plan.tokens) for x in (u, delta, B, C))
    _, (y, states) = jax.lax.scan(chunk, jnp.zeros_like(A), tokens, reverse=plan.reverse)
    return _join(y, u.shape[0]), states


def _row_gradients(
    plan: Plan, u: Array, delta: Array, A: Array, B: Array, C: Array, bias: Array, states: Array, v: Array
) -> tuple[Array, ...]:
    """Gradients of the row's inputs: chunks, and tokens in them, against the direction of the scan."""
    A, bias = (x.astype(states.dtype) for x in (A, bias))

    def chunk(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        tokens, v, h = xs
        u, delta, B, C = (x.astype(A.dtype) for x in tokens)
        dt, pull = jax.vjp(lambda delta: step_size(delta, bias, plan.softplus), delta)
        carry, (du, ddt, dB, dC) = plan.backward(h, carry, A, (u, dt, B, C), v, plan.reverse)
        return carry, (du, *pull(ddt), dB, dC)

    tokens = tuple(_split(x, plan.tokens) for x in (u, delta, B, C))
    start = jnp.zeros_like(A), jnp.zeros_like(A)
    (_, dA), grads = jax.lax.scan(chunk, start, (tokens, _split(v, plan.tokens), states), reverse=not plan.reverse)
    du, ddelta, dB, dC = (_join(x, u.shape[0]) for x in grads)
    return du, ddelta, dA, dB, dC, jnp.sum(ddelta, 0)


def _split(x: Float[Array, "l k"], tokens: int) -> Float[Array, "c t k"]:
    """Chunks of one length, with zeros at the end: where u = 0 and C = 0 neither state nor gradients change."""
    count = -(-x.shape[0] // tokens)
    return jnp.pad(x, ((0, -x.shape[0] % count), (0, 0))).reshape(count, -1, x.shape[-1])


def _join(x: Float[Array, "c t k"], length: int) -> Float[Array, "l k"]:
    """The inverse of `_split`."""
    return x.reshape(-1, x.shape[-1])[:length]
