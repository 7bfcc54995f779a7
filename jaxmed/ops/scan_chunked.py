"""The selective scan in chunks: between forward and backward pass only the state before each chunk is kept.

A row is one group of one image: inputs [l, p], state [n, p]. CPUs take row after row, and token after token within it: with the
batch inside a token's update XLA's loop takes five times as long (forward + backward at (b, l, d, n) = (4, 1024, 96, 16):
106 ms against 20; at (8, 256, 512, 16): 242 against 57; one thread at work either way). Other devices take all rows at once and
associative scans inside a chunk; that form is tested on CPU only.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.ops import scan_by_step, scan_by_tree
from jaxmed.ops.scan_inputs import ScanInputs, state_dtype, step_size

STEP_TOKENS = 64  # CPU: tokens per chunk; 32 to 256 measure the same
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
    """ScanInputs with the tokens inside the groups."""

    u: Float[Array, "b g l p"]
    delta: Float[Array, "b g l p"]
    A: Float[Array, "g n p"]
    B: Float[Array, "b g l n"]
    C: Float[Array, "b g l n"]
    bias: Float[Array, "g p"]


@functools.partial(jax.jit, static_argnums=(1, 2))  # traced once per shape: MedMamba's 32 scans lower in 7 s, not 31
def chunked_scan(inputs: ScanInputs, softplus: bool, reverse: bool) -> Float[Array, "b l g p"]:
    """The scan as the device at hand prefers it; a batch that is sharded over several CPU devices is scanned whole on each."""
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
    u, delta, A, B, C, bias = inputs
    u, delta, B, C = (jnp.swapaxes(x, 1, 2) for x in (u, delta, B, C))
    return jnp.swapaxes(_scan(plan, Rows(u, delta, A, B, C, bias)), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, rows: Rows) -> Float[Array, "b g l p"]:
    return _forward(plan, rows)[0]


def _forward(plan: Plan, rows: Rows) -> tuple[Array, tuple[Rows, Array]]:
    y, states = _each_row(plan, functools.partial(_row, plan), *rows)
    return y, (rows, states)


def _backward(plan: Plan, residuals: tuple[Rows, Array], v: Array) -> tuple[Rows]:
    rows, states = residuals
    du, ddelta, dA, dB, dC, dbias = _each_row(plan, functools.partial(_row_gradients, plan), *rows, states, v)
    grads = Rows(du, ddelta, jnp.sum(dA, 0), dB, dC, jnp.sum(dbias, 0))
    return (Rows(*(g.astype(x.dtype) for g, x in zip(grads, rows, strict=True))),)


_scan.defvjp(_forward, _backward)


def _each_row(plan: Plan, of_row: Callable, *args: Array) -> tuple[Array, ...]:
    """`of_row` over images and groups; results start with [b, g]. args: as Rows, then any that start with [b, g]."""
    each = _one_by_one if plan.one_by_one else _at_once
    has_images = tuple(name not in ("A", "bias") for name in Rows._fields) + (True,) * (len(args) - len(Rows._fields))
    return each(each(of_row, (True,) * len(args)), has_images)(*args)


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
