"""Times one training step of jaxmed's networks beside torch's, on this machine's CPU.

    python tools/bench.py                                  # resnet18 and mobilenetv2_100
    python tools/bench.py --models resnet50 --batch 8 --size 128 --rounds 10 --no-torch

A step is forward, backward and Adam on random ImageNet-like data in float32, 1000 classes; torch runs channels-last.
The two take turns, one step each per round. `jax ms` and `torch ms` are the fastest steps and `ratio` is torch_ms / jax_ms of
these (above 1: jaxmed is faster); `median` and `quartiles` are those of the rounds' own ratios. On a machine with other load
the two differ, because torch's threads wait for each other actively. Both sides run with the huge pages of
`jaxmed.host_memory`, which help both; --small-pages leaves them off.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxmed
from jaxmed.host_memory import restart_with_huge_pages

TORCHVISION = {"mobilenetv2_100": "mobilenet_v2"}  # where torchvision's name is not ours


def main() -> None:
    args = parse_args()
    if not args.small_pages:
        restart_with_huge_pages()
    print(f"batch {args.batch}, {args.size} x {args.size}, float32, {args.threads} threads, {args.rounds} rounds")
    print(f"{'model':24}{'jax ms':>9}{'torch ms':>10}{'ratio':>8}{'median':>8}{'quartiles':>12}{'compile s':>11}")
    for name in args.models:
        print(row(name, args), flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenetv2_100"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--small-pages", action="store_true", help="do not ask for huge pages")
    parser.add_argument("--no-torch", action="store_true", help="time jaxmed alone")
    return parser.parse_args()


def row(name: str, args: argparse.Namespace) -> str:
    """One line of the table."""
    image, label = random_batch(args.batch, args.size)
    jax_step, compile_s = jax_train_step(name, image, label)
    torch_step = None if args.no_torch else torch_train_step(name, image, label, args.threads)
    times = take_turns([step for step in (jax_step, torch_step) if step], args.rounds)
    jax_ms = min(times[0])
    if torch_step is None:
        return f"{name:24}{jax_ms:9.0f}{'-':>10}{'-':>8}{'-':>8}{'-':>12}{compile_s:11.1f}"
    low, middle, high = statistics.quantiles([t / j for j, t in zip(*times, strict=True)], n=4)
    torch_ms, spread = min(times[1]), f"{low:.2f}-{high:.2f}"
    return f"{name:24}{jax_ms:9.0f}{torch_ms:10.0f}{torch_ms / jax_ms:8.2f}{middle:8.2f}{spread:>12}{compile_s:11.1f}"


def random_batch(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [batch, size, size, 3] as after ImageNet normalisation, labels [batch]."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, size, size, 3), np.float32), rng.integers(0, 1000, batch).astype(np.int32)


def take_turns(steps: list[Callable[[], None]], rounds: int) -> list[list[float]]:
    """Milliseconds of each call; every round calls each step once. Two untimed rounds warm up."""
    times: list[list[float]] = [[] for _ in steps]
    for i in range(rounds + 2):
        for step, record in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if i >= 2:
                record.append((time.perf_counter() - start) * 1e3)
    return times


def jax_train_step(name: str, image: np.ndarray, label: np.ndarray) -> tuple[Callable[[], None], float]:
    """(a call that runs one step and waits for it, compile seconds)."""
    graph, *states = nnx.split(jaxmed.create_model(name, num_classes=1000), nnx.Param, ...)
    (params, params_tree), (rest, rest_tree) = map(jax.tree.flatten, states)  # flat: an nnx.State costs host time per call
    optimizer = optax.adam(5e-5)

    def step(params, rest, opt, image, label):
        def loss_of(params):
            states = jax.tree.unflatten(params_tree, params), jax.tree.unflatten(rest_tree, rest)
            model = nnx.merge(graph, *states, copy=True)
            logits = model(image, train=True, rngs=nnx.Rngs(dropout=0))
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
            return loss, jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))

        (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        update, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, update), rest, opt, loss

    state = [params, rest, optimizer.init(params)]
    batch = jnp.asarray(image), jnp.asarray(label)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, *batch).compile()
    seconds = time.perf_counter() - start

    def run() -> None:
        *state[:], loss = compiled(*state, *batch)
        loss.block_until_ready()

    return run, seconds


def torch_train_step(name: str, image: np.ndarray, label: np.ndarray, threads: int) -> Callable[[], None] | None:
    """The same step in torch, channels-last; None (with a remark) where torchvision is not installed or lacks the network."""
    models = import_torchvision_models()
    build = getattr(models, TORCHVISION.get(name, name), None) if models else None
    if build is None:
        print(f"torch: no torchvision network for {name}")
        return None
    import torch

    torch.set_num_threads(threads)
    model = build(num_classes=1000).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(label).long()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def import_torchvision_models():
    """torchvision.models, or None; a CPU torch beside a CUDA torchvision needs two operator names declared first."""
    try:
        import torch
    except ImportError:
        return None
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError:
        return None
    return torchvision.models


if __name__ == "__main__":
    main()
