"""Times forward passes and training steps of jaxmed's networks beside timm's, on this machine.

    python tools/bench.py                                  # resnet18 and mobilenetv2_100, training steps
    python tools/bench.py --models swin_base_patch4_window7_224 vit_base_patch16_224 --steps forward train --batch 8
    python tools/bench.py --models resnet50 --size 128 --rounds 10 --no-torch
    python tools/bench.py --scan                           # the selective scan instead (docs/selective_scan.md)
    python tools/bench.py --pruning --rounds 3             # X-Pruning at 2688 x 896 over the pruning ratio

A training step is forward, backward and Adam on random ImageNet-like data in float32, 1000 classes; torch runs channels-last.
The two take turns, two steps each per round, of which the second counts: the first step after the other side's finds its
memory gone and its threads asleep. `jax ms` and `torch ms` are the fastest steps and `ratio` is torch_ms / jax_ms of
these (above 1: jaxmed is faster); `median` and `quartiles` are those of the rounds' own ratios. On a machine with other load
the two differ, because torch's threads wait for each other actively. Both sides run with the huge pages of
`jaxmed.host_memory`, which help both; --small-pages leaves them off. On a GPU torch runs there as well, both without TF32.
"""

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxmed
from jaxmed.host_memory import restart_with_huge_pages


def main() -> None:
    args = parse_args()
    if not args.small_pages:
        restart_with_huge_pages()
    device = jax.devices()[0].device_kind
    if args.scan:
        from bench_scan import print_tables

        print(f"{device}, float32, {os.cpu_count()} cores, {args.rounds} rounds")
        return print_tables(args.rounds)
    if args.pruning:
        from bench_pruning import print_table

        print(f"{device}, {os.cpu_count()} cores, {args.rounds} rounds")
        return print_table(args.rounds)
    print(f"{device}, batch {args.batch}, {args.size} x {args.size}, float32, {args.threads} threads, {args.rounds} rounds")
    columns = f"{'jax ms':>9}{'torch ms':>10}{'ratio':>8}{'median':>8}{'quartiles':>12}{'compile s':>11}"
    print(f"{'model':30}{'step':8}" + columns)
    for name in args.models:
        for kind in args.steps:
            print(row(name, kind, args), flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenetv2_100"])
    parser.add_argument("--steps", nargs="+", choices=("forward", "train"), default=["train"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scan", action="store_true", help="time the selective scan and SS2D instead of networks")
    parser.add_argument("--pruning", action="store_true", help="time X-Pruning over the ratio of pruned windows")
    parser.add_argument("--small-pages", action="store_true", help="do not ask for huge pages")
    parser.add_argument("--no-torch", action="store_true", help="time jaxmed alone")
    return parser.parse_args()


def row(name: str, kind: str, args: argparse.Namespace) -> str:
    """One line of the table."""
    image, label = random_batch(args.batch, args.size)
    jax_step, compile_s = jax_call(name, kind, image, label)
    torch_step = None if args.no_torch else torch_call(name, kind, image, label, args.threads)
    times = take_turns([step for step in (jax_step, torch_step) if step], args.rounds)
    jax_ms, start = min(times[0]), f"{name:30}{kind:8}"
    if torch_step is None:
        return f"{start}{jax_ms:9.0f}{'-':>10}{'-':>8}{'-':>8}{'-':>12}{compile_s:11.1f}"
    low, middle, high = statistics.quantiles([t / j for j, t in zip(*times, strict=True)], n=4)
    torch_ms, spread = min(times[1]), f"{low:.2f}-{high:.2f}"
    return f"{start}{jax_ms:9.1f}{torch_ms:10.1f}{torch_ms / jax_ms:8.2f}{middle:8.2f}{spread:>12}{compile_s:11.1f}"


def random_batch(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [batch, size, size, 3] as after ImageNet normalisation, labels [batch]."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, size, size, 3), np.float32), rng.integers(0, 1000, batch).astype(np.int32)


def take_turns(steps: list[Callable[[], None]], rounds: int) -> list[list[float]]:
    """Milliseconds of each call; every round calls each step twice and times the second, as in a run of many steps."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, record in zip(steps, times, strict=True):
            step()
            start = time.perf_counter()
            step()
            record.append((time.perf_counter() - start) * 1e3)
    return times


def jax_call(name: str, kind: str, image: np.ndarray, label: np.ndarray) -> tuple[Callable[[], None], float]:
    """(a call that runs one step and waits for it, compile seconds)."""
    graph, *states = nnx.split(jaxmed.create_model(name, num_classes=1000), nnx.Param, ...)
    (params, params_tree), (rest, rest_tree) = map(jax.tree.flatten, states)  # flat: an nnx.State costs host time per call

    def model_of(params, rest):
        states = jax.tree.unflatten(params_tree, params), jax.tree.unflatten(rest_tree, rest)
        return nnx.merge(graph, *states, copy=True)

    make = train_call if kind == "train" else forward_call
    return make(model_of, params, rest, jnp.asarray(image), jnp.asarray(label))


def forward_call(model_of: Callable, params, rest, image, label) -> tuple[Callable[[], None], float]:
    """Logits in evaluation mode."""
    start = time.perf_counter()
    forward = jax.jit(lambda params, rest, image: model_of(params, rest)(image)).lower(params, rest, image).compile()
    return lambda: forward(params, rest, image).block_until_ready(), time.perf_counter() - start


def train_call(model_of: Callable, params, rest, image, label) -> tuple[Callable[[], None], float]:
    """Forward, backward, Adam."""
    optimizer = optax.adam(5e-5)

    def step(params, rest, opt, image, label):
        def loss_of(params):
            model = model_of(params, rest)
            logits = model(image, train=True, rngs=nnx.Rngs(dropout=0))
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
            return loss, jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))

        (loss, rest_), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        update, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, update), rest_, opt, loss

    state = [params, rest, optimizer.init(params)]
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, image, label).compile()
    seconds = time.perf_counter() - start

    def run() -> None:
        *state[:], loss = compiled(*state, image, label)
        loss.block_until_ready()

    return run, seconds


def torch_call(name: str, kind: str, image: np.ndarray, label: np.ndarray, threads: int) -> Callable[[], None] | None:
    """The same step in torch with timm's network; None (with a remark) where timm is not installed or lacks the network."""
    timm = import_timm()
    if timm is None or not timm.is_model(name):
        print(f"torch: {'timm lacks ' + name if timm else 'timm is not installed'}")
        return None
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    model = timm.create_model(name, num_classes=1000).to(device, memory_format=torch.channels_last)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).to(device).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(label).long().to(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return torch_train(torch, model, x, y, wait) if kind == "train" else torch_forward(torch, model, x, wait)


def torch_forward(torch: Any, model: Any, x: Any, wait: Callable[[], None]) -> Callable[[], None]:
    """Logits in evaluation mode."""
    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model(x)
        wait()

    return run


def torch_train(torch: Any, model: Any, x: Any, y: Any, wait: Callable[[], None]) -> Callable[[], None]:
    """Forward, backward, Adam."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        wait()

    return run


def import_timm() -> Any:
    """timm, or None; a CPU torch beside a CUDA torchvision needs two operator names declared first."""
    try:
        import torch
    except ImportError:
        return None
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with contextlib.suppress(ImportError):
        import timm

        return timm
    return None


if __name__ == "__main__":
    main()
