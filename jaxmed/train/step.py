"""The two jitted functions of a run: one training step and one evaluation step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxmed.tasks.inputs import normalise
from jaxmed.train.state import State, merge_model, statistics

Batch = dict[str, jax.Array]


class Steps:
    """The network, its task and its optimiser, compiled.

    The network gets the batch's pixels of its `input_names`, normalised, and the arrays of its `side_inputs` by keyword. `mean`
    and `std` are those of the pretrained weights. `dropout_seed` and the step number make the dropout key, so that a resumed
    run draws the same masks. `shardings` is the layout of the state, kept from step to step.
    """

    def __init__(
        self, model: nnx.Module, task: Any, optimizer, mean, std, dropout_seed: int, shardings: Any = None
    ):
        self.input_names = tuple(model.input_names)
        self.side_inputs = tuple(getattr(model, "side_inputs", ()))
        self.task, self.optimizer = task, optimizer
        self.mean, self.std, self.dropout_seed = tuple(mean), tuple(std), dropout_seed
        self.graph, leaves = nnx.split(model)
        self.template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), leaves)
        self.train = jax.jit(self._train, donate_argnums=0, out_shardings=(shardings, None))
        self.evaluate = jax.jit(self._evaluate)

    def forward(self, state: State, batch: Batch, *, train: bool, rngs: nnx.Rngs | None = None):
        """(model after the call, its named outputs) for a batch of bytes."""
        model = merge_model(self.graph, self.template, state)
        inputs = [normalise(batch[name], self.mean, self.std) for name in self.input_names]
        beside = {name: batch[name] for name in self.side_inputs}
        return model, model(*inputs, train=train, aux=True, rngs=rngs, **beside)

    def _train(self, state: State, batch: Batch, learning_rate: jax.Array) -> tuple[State, jax.Array]:
        """One update; returns the new state and the batch's mean loss."""
        key = jax.random.fold_in(jax.random.key(self.dropout_seed), state["step"])

        def loss_of(params):
            model, out = self.forward(state | {"params": params}, batch, train=True, rngs=nnx.Rngs(dropout=key))
            loss, sums = self.task.loss(out, batch)
            return loss, (sums, statistics(model))

        (loss, (sums, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        direction, opt = self.optimizer.update(grads, state["opt"], state["params"])
        update = jax.tree.map(lambda d: -learning_rate * d, direction)
        return {
            "params": optax.apply_updates(state["params"], update),
            "frozen": state["frozen"],
            "stats": stats,
            "opt": opt,
            "step": state["step"] + 1,
            "meters": jax.tree.map(jnp.add, state["meters"], sums),
        }, loss

    def _evaluate(self, state: State, batch: Batch) -> Batch:
        """Per-case arrays of a batch, with `case_id` and `weight` (0 for padding)."""
        _, out = self.forward(state, batch, train=False)
        return self.task.per_case(out, batch) | {key: batch[key] for key in ("case_id", "weight")}


def per_case_rows(run_batches: Callable[[], Any], evaluate: Callable[[Batch], Any], num_cases: int) -> dict[str, Any]:
    """Evaluates every batch and joins the cases, padding removed, ordered by `case_id`.

    Raises RuntimeError unless every one of `num_cases` cases was seen exactly once.
    """
    import numpy as np

    parts = [evaluate(batch) for batch in run_batches()]
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    keep = np.flatnonzero(rows["weight"] > 0)
    keep = keep[np.argsort(rows["case_id"][keep], kind="stable")]
    rows = {key: value[keep] for key, value in rows.items()}
    if len(keep) != num_cases or len(np.unique(rows["case_id"])) != num_cases:
        raise RuntimeError(f"evaluation saw {len(keep)} cases, expected each of {num_cases} once")
    return rows
