"""`--mode=show`: what a config resolves to, and what its network costs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.setup import build_model, log, make_task
from jaxmed.train.state import PARTS, new_state
from jaxmed.train.step import Steps
from jaxmed.tree import count, flatten

GIB = 2.0**30


def show(config: ConfigDict) -> None:
    """Prints the resolved config, a table of parameters, FLOPs of one case, and memory of the compiled training step."""
    log(str(config))
    classes = tuple(config.data.classes)
    model = nnx.eval_shape(lambda: build_model(config, len(classes)))
    log(_parameter_table(model))
    forward, train = compile_steps(config, model, classes)
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


def compile_steps(config: ConfigDict, model: nnx.Module, classes: tuple[str, ...]):
    """(compiled forward of one case, compiled training step of a batch); nothing is allocated."""
    optimizer, task = make_optimizer(config.optimizer), make_task(model, classes)
    steps = Steps(model, task, optimizer, (0.5,) * 3, (0.5,) * 3, 0)
    state = jax.eval_shape(lambda m: new_state(m, optimizer, task.meters), model)
    one = jax.jit(steps._evaluate).lower({k: state[k] for k in PARTS}, _batch(config, model, 1)).compile()
    step = steps.train.lower(state, _batch(config, model, config.batch_size), jnp.float32(0)).compile()
    return one, step


def _batch(config: ConfigDict, model: nnx.Module, size: int) -> dict:
    view = jax.ShapeDtypeStruct((size, config.data.size, config.data.size, 1), np.uint8)
    number = {key: jax.ShapeDtypeStruct((size,), np.int32) for key in ("label", "case_id")}
    return dict.fromkeys(model.input_names, view) | number | {"weight": jax.ShapeDtypeStruct((size,), np.float32)}


def _parameter_table(model: nnx.Module) -> str:
    flat = flatten(_shapes(model))
    parts: dict[str, int] = {}
    for path, size in flat.items():
        words = path.split(".")
        name = ".".join(words[:2]) if words[1].isdigit() else words[0]
        parts[name] = parts.get(name, 0) + size
    lines = [f"  {name:<28} {size:>14,}" for name, size in parts.items()]
    frozen = count(model) - count(model, trainable=True)
    return "\n".join(["parameters", *lines, f"  {'total':<28} {count(model):>14,}  ({frozen:,} frozen)"])


def _shapes(model: nnx.Module) -> dict:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): int(np.prod(leaf.get_value().shape)) for path, leaf in flat}
