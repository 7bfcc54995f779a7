"""`--mode=show`: what a config resolves to, and what its network costs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.train.kinds import kind_of
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.setup import build_model, log, make_recipe
from jaxmed.train.state import evaluated, new_state
from jaxmed.train.step import Steps
from jaxmed.train.warm_up import warm_up
from jaxmed.tree import count, flatten

GIB = 2.0**30


def show(config: ConfigDict) -> None:
    """Prints the resolved config, a table of parameters, FLOPs of one case, and memory of the compiled training step."""
    log(str(config))
    model = nnx.eval_shape(lambda: build_model(config, len(config.data.classes)))
    log(_parameter_table(model))
    forward, train = compile_steps(config, model)
    flops = forward.cost_analysis().get("flops", float("nan"))
    log(f"forward, 1 case: {flops / 2e9:.3f} G multiply-adds ({flops / 1e9:.3f} GFLOPs) by XLA's count")
    memory = train.memory_analysis()
    if memory:
        log(
            f"training step, batch {config.batch_size}: {memory.temp_size_in_bytes / GIB:.2f} GiB temporary + "
            f"{memory.argument_size_in_bytes / GIB:.2f} GiB state and batch"
        )
    if config.published:
        log("published: " + ", ".join(f"{k} {v}" for k, v in config.published.items()))


def compile_steps(config: ConfigDict, model: nnx.Module):
    """(compiled forward of one case, compiled training step of a batch); nothing is allocated."""
    kind, optimizer = kind_of(config), make_optimizer(config.optimizer)
    task = kind.task(model)
    steps = Steps(model, task, optimizer, (0.5,) * 3, (0.5,) * 3, 0, recipe=make_recipe(config))
    warm_up(steps, config, epoch=0)  # the first epochs prune least and need most memory
    state = jax.eval_shape(lambda m: new_state(m, optimizer, task.meters, averaged=config.ema > 0), model)
    one = jax.jit(steps._evaluate).lower(evaluated(state), kind.example(model, 1)).compile()
    step = steps.train.lower(state, kind.example(model, config.batch_size), jnp.float32(0)).compile()
    return one, step


def _parameter_table(model: nnx.Module) -> str:
    flat = flatten(_shapes(model))
    parts: dict[str, int] = {}
    for path, size in flat.items():
        words = path.split(".")
        name = ".".join(words[:2]) if words[1:] and words[1].isdigit() else words[0]
        parts[name] = parts.get(name, 0) + size
    lines = [f"  {name:<28} {size:>14,}" for name, size in parts.items()]
    frozen = count(model) - count(model, trainable=True)
    return "\n".join(["parameters", *lines, f"  {'total':<28} {count(model):>14,}  ({frozen:,} frozen)"])


def _shapes(model: nnx.Module) -> dict:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): int(np.prod(leaf.get_value().shape)) for path, leaf in flat}
