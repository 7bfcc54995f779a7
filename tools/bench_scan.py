"""The table of `python tools/bench.py --scan`: forms of the selective scan, and SS2D, by time and temporary memory."""

import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmed.nn import SS2D
from jaxmed.ops.selective_scan import selective_scan

SIZES = [  # batch, tokens, channels, states
    (1, 256, 96, 16), (1, 1024, 96, 16), (1, 3136, 96, 16), (4, 1024, 96, 16), (8, 256, 512, 16), (8, 49, 768, 16),
    (1, 16384, 96, 16), (1, 16384, 192, 16), (1, 65536, 96, 16),
]  # fmt: skip
FORMS = ("associative", "sequential", "auto")  # "auto" is "chunked"
MAP = (1, 64, 64, 96)  # SS2D: batch, height, width, inner channels
LIMIT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # temporary bytes; what needs more is not run

Call = tuple[Callable[[], None], float]  # (runs once and waits, temporary bytes)


def print_tables(rounds: int) -> None:
    """Both tables; calls take turns, every one runs twice per round, the fastest second run counts."""
    print(f"{'b, l, d, n':22}{'method':14}{'f ms':>9}{'fb ms':>10}{'f ratio':>9}{'fb ratio':>10}{'f MB':>9}{'fb MB':>9}")
    for size in SIZES:
        forms = {name: (lambda x, name=name: selective_scan(**x, method=name)) for name in FORMS}
        table(", ".join(map(str, size)), forms, scan_inputs(*size), rounds)
    block, x = SS2D(MAP[-1] // 2, rngs=nnx.Rngs(0)), noise(np.random.default_rng(0), *MAP)
    graph, state = nnx.split(block)
    maps = {"naive": lambda a: naive_ss2d(nnx.merge(graph, a[0]), a[1]), "SS2D": lambda a: nnx.merge(graph, a[0]).scans(a[1])}
    table("SS2D " + "x".join(map(str, MAP)), maps, (state, x), rounds)


def table(title: str, forms: dict[str, Callable], inputs, rounds: int) -> None:
    """One line per form; ratios are against the first one that fits in memory."""
    calls = {name: [compiled(function, inputs, back) for back in (False, True)] for name, function in forms.items()}
    fits = {name: both for name, both in calls.items() if max(memory for _, memory in both) <= LIMIT}
    times = fastest([call for both in fits.values() for call, _ in both], rounds)
    best = dict(zip(fits, zip(times[::2], times[1::2], strict=True), strict=True))
    for name, both in calls.items():
        megabytes = "".join(f"{memory / 1e6:9.1f}" for _, memory in both)
        if name not in fits:
            print(f"{title:22}{name:14}{'does not fit':>38}{megabytes}", flush=True)
            continue
        f, fb = best[name]
        f0, fb0 = best[next(iter(fits))]
        print(f"{title:22}{name:14}{f:9.1f}{fb:10.1f}{f0 / f:9.1f}{fb0 / fb:10.1f}{megabytes}", flush=True)


def compiled(function: Callable, inputs, backward: bool) -> Call:
    """The result, or the result and all gradients of a weighted sum of it."""

    def both(inputs):
        y, pull = jax.vjp(function, inputs)
        return y, pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    program = jax.jit(both if backward else function).lower(inputs).compile()
    return lambda: jax.block_until_ready(program(inputs)), program.memory_analysis().temp_size_in_bytes


def fastest(calls: list[Callable[[], None]], rounds: int) -> list[float]:
    """Milliseconds of each call's fastest run; the calls take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            call()
            start = time.perf_counter()
            call()
            best[i] = min(best[i], (time.perf_counter() - start) * 1e3)
    return best


def scan_inputs(b: int, length: int, d: int, n: int) -> dict[str, jax.Array]:
    """Random inputs with the step sizes and decays that networks start from."""
    rng = np.random.default_rng(0)
    shapes = dict(u=(b, length, d), delta=(b, length, d), B=(b, length, n), C=(b, length, n), D=(d,), delta_bias=(d,))
    inputs = {name: noise(rng, *shape) for name, shape in shapes.items()}
    A = -jnp.tile(jnp.arange(1, n + 1, dtype=jnp.float32)[None], (d, 1))
    return inputs | {"A": A, "delta_bias": inputs["delta_bias"] - 4}


def noise(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def naive_ss2d(block: SS2D, x: jax.Array) -> jax.Array:
    """SS2D's scans as usually written: four flipped copies of the map side by side, einsums, one full associative scan."""
    b, h, w, c = x.shape
    rows, columns = x.reshape(b, h * w, c), jnp.swapaxes(x, 1, 2).reshape(b, h * w, c)
    two = jnp.swapaxes(jnp.stack([rows, columns], 1), 2, 3)
    u = jnp.concatenate([two, jnp.flip(two, -1)], 1)  # [b, 4, c, l]
    projected = jnp.einsum("bkcl,kjc->bkjl", u, block.x_proj_weight.get_value())
    r, B, C = jnp.split(projected, (block.rank, block.rank + block.d_state), 2)
    delta = jnp.einsum("bkrl,kcr->bkcl", r, block.dt_projs_weight.get_value())
    tokens = [jnp.moveaxis(v.reshape(b, 4 * c, h * w), 1, 2) for v in (u, delta)]
    A, bias = -jnp.exp(block.A_logs.get_value()), block.dt_projs_bias.get_value().reshape(-1)
    y = selective_scan(
        *tokens, A, jnp.moveaxis(B, 3, 1), jnp.moveaxis(C, 3, 1), block.Ds.get_value(), bias, method="associative"
    )
    y = jnp.moveaxis(y, 1, 2).reshape(b, 4, c, h * w)
    y = y[:, :2] + jnp.flip(y[:, 2:], -1)
    columns = jnp.swapaxes(y[:, 1].reshape(b, c, w, h), 2, 3)
    return jnp.moveaxis(y[:, 0].reshape(b, c, h, w) + columns, 1, 3)
