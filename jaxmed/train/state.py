"""The train state: plain dicts and arrays only.

{"params": trainable leaves, "frozen": leaves under `model.frozen`, "stats": batch statistics, "opt": optimiser state,
 "step": batches consumed, "meters": sums since the epoch began, and perhaps "ema": running mean of the parameters}
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx

from jaxmed.train import ema
from jaxmed.tree import Tree, flatten, is_under, set_tree, tree_of, unflatten

State = dict[str, Any]
PARTS = ("params", "frozen", "stats")


def split_model(model: nnx.Module) -> State:
    """Parameters and statistics of a model as the state's three nested dicts."""
    stats = set(_flat(model, nnx.BatchStat))
    flat = flatten(tree_of(model))
    frozen = {k for k in flat if k not in stats and is_under(k, tuple(model.frozen))}
    kind = {k: "stats" if k in stats else "frozen" if k in frozen else "params" for k in flat}
    return {part: unflatten({k: v for k, v in flat.items() if kind[k] == part}) for part in PARTS}


def evaluated(state: State) -> State:
    """The parts of a state that an evaluation looks at: the running mean in place of the parameters where there is one."""
    return {"params": state.get("ema", state["params"]), "frozen": state["frozen"], "stats": state["stats"]}


def merge_model(graph: nnx.GraphDef, template: Any, state: State) -> nnx.Module:
    """A model with the state's values; inside a trace it is a fresh copy, so statistics can be updated."""
    model = nnx.merge(graph, template, copy=True)
    for part in PARTS:
        set_tree(model, state[part])
    return model


def statistics(model: nnx.Module) -> Tree:
    """The batch statistics after a training call, as a nested dict."""
    return unflatten(_flat(model, nnx.BatchStat))


def new_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, meters: Iterable[str], *, averaged: bool = False
) -> State:
    """A state at step 0; with `averaged` also "ema", the running mean of the parameters."""
    state = split_model(model)
    state |= {"ema": ema.start(state["params"])} if averaged else {}
    zeros = {name: jnp.zeros((), jnp.float32) for name in meters}
    return state | {"opt": optimizer.init(state["params"]), "step": jnp.zeros((), jnp.int32), "meters": zeros}


def _flat(model: nnx.Module, kind: type) -> dict[str, Any]:
    flat = nnx.to_flat_state(nnx.state(model, kind))
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in flat}
