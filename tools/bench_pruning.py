"""The table of `python tools/bench.py --pruning`: X-Pruning over the pruning ratio r by time, operations and memory.

One pair of 2688 x 896 views, batch 1, evaluation mode. All programs run in one process and take turns; every one runs twice
per round, and the fastest second run counts. `GFLOP` counts multiplications and additions as XLA does (cost_analysis; the
chunks of the cross-attention count once), `temp MB` is the memory of the compiled program beside weights and views.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from bench_scan import fastest
from flax import nnx

import jaxmed

RATIOS = (0.0, 0.3, 0.5, 0.6)
MODELS = ("dv_swin_pruned", "x_pruning")
SIZE = (2688, 896)


def print_table(
    rounds: int, models: tuple[str, ...] = MODELS, ratios: tuple[float, ...] = RATIOS, size: tuple[int, int] = SIZE
) -> None:
    """A line per network and ratio; `of r = 0` relates the time to the same network's without pruning."""
    dtype = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    print(f"{size[0]} x {size[1]}, one pair, {dtype}")
    print(f"{'model':18}{'r':>5}{'ms':>10}{'of r = 0':>10}{'GFLOP':>9}{'temp MB':>10}{'compile s':>11}")
    rng = np.random.default_rng(0)
    views = [jnp.asarray(rng.standard_normal((1, *size, 3)), jnp.float32) for _ in range(2)]
    for name in models:
        programs = [compiled(name, ratio, dtype, views) for ratio in ratios]
        times = fastest([run for run, *_ in programs], rounds)
        for ratio, ms, (_, flops, temp, seconds) in zip(ratios, times, programs, strict=True):
            print(f"{name:18}{ratio:5.1f}{ms:10.0f}{ms / times[0]:10.2f}{flops / 1e9:9.0f}{temp / 1e6:10.0f}{seconds:11.1f}")


def compiled(name: str, ratio: float, dtype: str, views: list[jax.Array]) -> tuple[Callable[[], None], float, int, float]:
    """(runs once and waits, floating point operations, temporary bytes, compile seconds)."""
    graph, state = nnx.split(jaxmed.create_model(name, prune_ratio=ratio, dtype=dtype))
    leaves, tree = jax.tree.flatten(state)
    start = time.perf_counter()

    def forward(leaves, cc, mlo):
        return nnx.merge(graph, jax.tree.unflatten(tree, leaves))(cc, mlo)

    program = jax.jit(forward).lower(leaves, *views).compile()
    seconds, memory = time.perf_counter() - start, program.memory_analysis().temp_size_in_bytes
    return lambda: program(leaves, *views).block_until_ready(), program.cost_analysis()["flops"], memory, seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--size", nargs=2, type=int, default=SIZE)
    options = parser.parse_args()
    print_table(options.rounds, options.models, options.ratios, tuple(options.size))
