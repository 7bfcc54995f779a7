"""The two jitted functions of a run: one training step and one evaluation step."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxmed.backbones.swin_pruned import kept_windows, set_warm_up
from jaxmed.errors import UserError
from jaxmed.tasks.inputs import normalise, standardise
from jaxmed.train import ema
from jaxmed.train.flips import Axes, mean_outputs, mean_over_flips
from jaxmed.train.groups import rate_factors
from jaxmed.train.mix import MixOptions, mix
from jaxmed.train.state import State, merge_model, statistics

Batch = dict[str, jax.Array]
NOISE, MIXING, PARTS = 1, 2, 3  # streams of random numbers beside dropout's


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the steps do besides loss and update.

    mix: mixup, cutmix and label smoothing. factors: {path prefix: factor of the learning rate}. ema: decay of the parameters'
    running mean; 0 keeps none. accumulate: parts of a batch that go through the network one after the other. flips: what is
    evaluated is the mean over these (`flip_axes`).
    """

    mix: MixOptions | None = None
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ema: float = 0.0
    accumulate: int = 1
    flips: Axes = ((),)


class Steps:
    """The network, its task and its optimiser, compiled.

    The network gets the batch's pixels of its `input_names`, normalised, and the arrays of its `side_inputs` by keyword. `mean`
    and `std` are those of the pretrained weights; a network whose `normalisation` is "image" gets one channel, by each image's
    own (`standardise`). `dropout_seed` and the step number make the dropout key, so that a resumed run draws the same masks.
    `shardings` is the layout of the state, kept from step to step.
    """

    def __init__(
        self, model: nnx.Module, task: Any, optimizer, mean, std, dropout_seed: int, shardings: Any = None,
        recipe: Recipe | None = None,
    ):
        self.input_names = tuple(model.input_names)
        self.side_inputs = tuple(getattr(model, "side_inputs", ()))
        self.normalisation = getattr(model, "normalisation", "imagenet")
        self.task, self.optimizer, self.recipe = task, optimizer, recipe or Recipe()
        if self.recipe.accumulate > 1 and not hasattr(task, "weights"):
            raise UserError("config.accumulate: the loss of this task is no plain mean over cases; leave it at 1")
        self.mean, self.std, self.dropout_seed = tuple(mean), tuple(std), dropout_seed
        self.graph, leaves = nnx.split(model)
        self.template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), leaves)
        self.shardings = shardings
        self.evaluate = jax.jit(self._evaluate)
        self._compile_train()

    def _compile_train(self) -> None:
        """A training step that is traced anew at its next call: jit knows bound methods again, but no new partial."""
        self.train = jax.jit(functools.partial(self._train), donate_argnums=0, out_shardings=(self.shardings, None))

    def set_warm_up(self, factors: Sequence[float], size: tuple[int, int]) -> bool:
        """Training prunes by these factors of the final ratios (`set_warm_up`) from now on; evaluation by the final ones.

        Returns whether that changes how many windows of images of this size (height, width) are kept, and so the step.
        """
        model = nnx.merge(self.graph, self.template)
        before = kept_windows(model, size)
        set_warm_up(model, factors)
        if kept_windows(model, size) == before:
            return False
        self.graph = nnx.split(model)[0]
        self._compile_train()
        return True

    def inputs(self, batch: Batch) -> list[jax.Array]:
        """The network's pictures, normalised, from a batch of bytes."""
        if self.normalisation == "image":
            return [standardise(batch[name]) for name in self.input_names]
        return [normalise(batch[name], self.mean, self.std) for name in self.input_names]

    def forward(self, state: State, inputs: Sequence[jax.Array], batch: Batch, *, train: bool, rngs: nnx.Rngs | None = None):
        """(model after the call, its named outputs)."""
        model = merge_model(self.graph, self.template, state)
        beside = {name: batch[name] for name in self.side_inputs}
        return model, model(*inputs, train=train, aux=True, rngs=rngs, **beside)

    def _train(
        self, state: State, batch: Batch, learning_rate: jax.Array, b1: jax.Array | None = None
    ) -> tuple[State, jax.Array]:
        """One update; returns the new state and the batch's mean loss. b1: Adam's first beta where it is cycled."""
        key = jax.random.fold_in(jax.random.key(self.dropout_seed), state["step"])
        gradients = self._accumulated if self.recipe.accumulate > 1 else self._gradients
        loss, sums, stats, grads = gradients(state, self._mixed(batch, key), key)
        params, opt = self._updated(state, grads, learning_rate, b1)
        averaged = {"ema": ema.update(state["ema"], params, self.recipe.ema)} if self.recipe.ema else {}
        return {
            "params": params,
            "frozen": state["frozen"],
            "stats": stats,
            "opt": opt,
            "step": state["step"] + 1,
            "meters": jax.tree.map(jnp.add, state["meters"], sums),
        } | averaged, loss

    def _gradients(self, state: State, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], Any, Any]:
        """(mean loss, sums for the meters, batch statistics, gradients)."""
        inputs = batch["inputs"] if "inputs" in batch else self.inputs(batch)

        def loss_of(params):
            rngs = nnx.Rngs(dropout=key, noise=jax.random.fold_in(key, NOISE))
            model, out = self.forward(state | {"params": params}, inputs, batch, train=True, rngs=rngs)
            loss, sums = self.task.loss(out, batch | {"step": state["step"]})
            return loss, (sums, statistics(model))

        (loss, (sums, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        return loss, sums, stats, grads

    def _accumulated(self, state: State, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], Any, Any]:
        """`_gradients` of a batch that goes through the network part by part: equal to the whole batch's, but for batch
        statistics (each part has its own) and random draws. Part m has the rows m, m + parts, ...: the devices keep theirs."""
        parts = self.recipe.accumulate
        cut = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)
        keys = jax.random.split(jax.random.fold_in(key, PARTS), parts)

        def add(total, part):
            loss, sums, stats, grads = self._gradients(state | {"stats": total[2]}, *part)
            weight = jnp.sum(self.task.weights(part[0]))
            scaled = jax.tree.map(lambda x: weight * x, (loss, grads))
            return (*jax.tree.map(jnp.add, total[:2], ((weight, scaled), sums)), stats), None

        zeros = jax.tree.map(jnp.zeros_like, (state["meters"], (state["meters"]["count"], state["params"])))
        start = ((jnp.float32(0), zeros[1]), zeros[0], state["stats"])
        ((weight, scaled), sums, stats), _ = jax.lax.scan(add, start, (cut, keys))
        loss, grads = jax.tree.map(lambda x: x / jnp.where(weight > 0, weight, 1.0), scaled)
        return loss, sums, stats, grads

    def _mixed(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch, with mixed and normalised `inputs` and soft `targets` where the recipe says so."""
        if self.recipe.mix is None:
            return batch
        key = jax.random.fold_in(key, MIXING)
        inputs, targets = mix(self.inputs(batch), batch["label"], key, len(self.task.classes), self.recipe.mix)
        return batch | {"inputs": inputs, "targets": targets}

    def _updated(self, state: State, grads: Any, learning_rate: jax.Array, b1: jax.Array | None) -> tuple[Any, Any]:
        """(parameters, optimiser state) after one step."""
        cycled = {} if b1 is None else {"b1": b1}
        direction, opt = self.optimizer.update(grads, state["opt"], state["params"], **cycled)
        factors = rate_factors(direction, self.recipe.factors)
        update = jax.tree.map(lambda d, factor: -learning_rate * factor * d, direction, factors)
        return optax.apply_updates(state["params"], update), opt

    def _evaluate(self, state: State, batch: Batch) -> Batch:
        """Per-case arrays of a batch, with `case_id` and `weight` (0 for padding).

        Where the state has `members`, states of further networks, outputs are the mean over all of them.
        """
        rngs = nnx.Rngs(noise=self.dropout_seed)  # only for routers that keep their noise in evaluation, as HSQformer's code

        def outputs(member):
            def forward(inputs):
                return self.forward(member, inputs, batch, train=False, rngs=rngs)[1]

            return mean_over_flips(forward, self.inputs(batch), self.recipe.flips)

        out = mean_outputs([outputs(member) for member in (state, *state.get("members", ()))])
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
