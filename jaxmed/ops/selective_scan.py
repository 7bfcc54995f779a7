"""The selective scan of state-space models (Mamba: Gu and Dao 2023, section 3)."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.ops.scan_chunked import chunked_scan
from jaxmed.ops.scan_inputs import ScanInputs
from jaxmed.ops.scan_whole import associative_scan, sequential_scan

METHODS: dict[str, Callable[[ScanInputs, bool, bool], Array]] = {
    "auto": chunked_scan, "associative": associative_scan, "chunked": chunked_scan, "sequential": sequential_scan,
}  # fmt: skip


def selective_scan(
    u: Float[Array, "b l d"], delta: Float[Array, "b l d"], A: Float[Array, "d n"],
    B: Float[Array, "b l n"] | Float[Array, "b l g n"], C: Float[Array, "b l n"] | Float[Array, "b l g n"],
    D: Float[Array, "d"] | None = None, delta_bias: Float[Array, "d"] | None = None,
    softplus: bool = True, reverse: bool = False, method: str = "auto",
) -> Float[Array, "b l d"]:
    """y_l = <C_l, h_l> + D u_l, where h_l = exp(dt_l A) h_{l-1} + dt_l u_l B_l, h_{-1} = 0, dt = softplus(delta + delta_bias).

    A is discretised exactly and B by Euler's rule, as in the published code of Mamba and VMamba. d / g consecutive channels
    share one group's B and C. `reverse` runs from the last token to the first. State and result are float32 whatever the inputs
    are (bfloat16 u, B and C cost about 1e-3 of the largest value; keep delta and A in float32), float64 where an input is.

    method:
        "sequential": token after token, differentiated by JAX; the oracle
        "associative": `jax.lax.associative_scan` over all tokens, differentiated by JAX; holds b * l * d * n numbers many times
        "chunked": keeps the state before each chunk; the backward pass computes the others again (reverse mode only)
        "auto": "chunked", best or level at nearly every size measured on CPU: at (b, l, d, n) = (1, 3136, 96, 16) 15 times
            faster than "associative" forward and forward + backward, in 1/99 of its temporary memory (docs/selective_scan.md)
    Raises UserError for an unknown method and for shapes that do not belong together.
    """
    if method not in METHODS:
        raise UserError(f"selective_scan has no method={method!r}; there are {', '.join(map(repr, METHODS))}")
    inputs = _grouped(u, delta, A, B, C, delta_bias)
    y = METHODS[method](inputs, softplus, reverse).reshape(u.shape)
    return y if D is None else y + D.astype(y.dtype).reshape(1, 1, -1) * u.astype(y.dtype)


def _grouped(u: Array, delta: Array, A: Array, B: Array, C: Array, bias: Array | None) -> ScanInputs:
    """Channels as [g, d / g], A with the channels last; checks every shape."""
    b, length, d = u.shape
    n = A.shape[-1]
    B, C = (x[:, :, None] if x.ndim == 3 else x for x in (B, C))
    g = B.shape[2]
    bias = jnp.zeros((d,), jnp.float32) if bias is None else bias
    wanted = {"delta": (delta, u.shape), "A": (A, (d, n)), "B": (B, (b, length, g, n)), "C": (C, (b, length, g, n)),
              "delta_bias": (bias, (d,))}  # fmt: skip
    wrong = [f"{name} is {list(x.shape)}, not {list(shape)}" for name, (x, shape) in wanted.items() if x.shape != shape]
    if wrong or d % g:
        wrong += [f"{d} channels cannot be divided into the {g} groups of B"] if d % g else []
        raise UserError(f"selective_scan with u [batch, length, channels] = {list(u.shape)}: {'; '.join(wrong)}")
    u, delta = (x.reshape(b, length, g, d // g) for x in (u, delta))
    return ScanInputs(u, delta, jnp.swapaxes(A.reshape(g, d // g, n), 1, 2), B, C, bias.reshape(g, d // g))
