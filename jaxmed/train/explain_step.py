"""The jitted function of --mode=explain: heat maps of a batch."""

import inspect
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from jaxmed.errors import UserError
from jaxmed.explain.attention import query_maps
from jaxmed.explain.cross_attention import attends_across, look_across
from jaxmed.explain.grad_cam import class_scores, grad_cam
from jaxmed.explain.intercept import catching
from jaxmed.explain.layers import Layer, Look, looks, maps_of
from jaxmed.models.each_view import EachView
from jaxmed.parallel import put_batch, to_host
from jaxmed.train.explain_cases import Cases
from jaxmed.train.setup import Run
from jaxmed.train.state import State, evaluated, merge_model

BESIDE = ("gate", "stage_attention", "windows", "saliency", "rois", "attention")  # outputs that are shown as they are


class Explainer:
    """Compiled for one network. `looks` are the layers that are looked at: `layer`, or the last map of each encoder. From the
    first batch on `reached` has each look with the one layer that counts.

    A batch on the host -> arrays on the host, padding included: heat, {name of every candidate layer: [b, answers, maps per
    case, h, w]}; queries, a list of [b, h, w]; probabilities [b, answers, k]; outputs, those of BESIDE that there are; across,
    what `look_across` gives, of networks whose views look at each other, for the hottest windows or for `window`.
    """

    def __init__(
        self, run: Run, kind: Cases, classes: list[int], layer: str | None = None, window: tuple[int, int] | None = None
    ):
        self.run, self.steps, self.kind, self.classes, self.window = run, run.steps, kind, classes, window
        self.answers, self.state = kind.answers, evaluated(run.state)
        self.model = nnx.merge(self.steps.graph, self.steps.template)
        self.looks: list[Look] = []
        self.reached: list[tuple[Look, Layer]] = []
        if window is not None and not attends_across(self.model):
            raise UserError(f"--window: {run.config.model.name} has no cross-attention between views")
        example = run.kind.example(self.model, 2)  # see `layers` for the 2
        jax.eval_shape(lambda state, batch: self._find(state, batch, layer), self.state, example)
        self.explain, self.across = jax.jit(self._explain), jax.jit(self._across)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        placed = put_batch(batch, self.run.mesh)
        found = self.explain(self.state, placed)
        host = to_host(found)
        self.reached = self.reached or [(look, _reached(look, host["heat"])) for look in self.looks]
        if attends_across(self.model):
            host["across"] = to_host(self.across(self.state, placed, self._hot(found["heat"])))
        return host

    def _hot(self, heat: Mapping[str, Array]) -> dict[str, Array]:
        """{view: the heat map over it}."""
        return {self.kind.place(number, len(self.reached), look.encoder, 0)[1]: heat[layer.name][:, 0, 0]
                for number, (look, layer) in enumerate(self.reached)}  # fmt: skip

    def _across(self, state: State, batch: Mapping[str, Array], hot: Mapping[str, Array]) -> dict:
        model, inputs, _ = self._call(state, batch)
        return look_across(model, *inputs, hot, self.window)

    def _call(self, state: State, batch: Mapping[str, Array]) -> tuple[nnx.Module, list[Array], dict]:
        """The network, its inputs, and what else its call takes."""
        model = merge_model(self.steps.graph, self.steps.template, state)
        options = dict(train=False, aux=True, rngs=nnx.Rngs(noise=self.steps.dropout_seed))
        options |= {name: batch[name] for name in self.steps.side_inputs}
        if "attention" in inspect.signature(type(model).__call__).parameters:
            options["attention"] = True
        return model, self.steps.inputs(batch), options

    def _find(self, state: State, batch: Mapping[str, Array], layer: str | None) -> None:
        model, inputs, options = self._call(state, batch)
        with catching(model) as seen:
            out = model(*inputs, **options)
        missing = [answer.output for answer in self.answers if answer.output not in out]
        if missing:
            raise UserError(f"config.model.name={self.run.config.model.name!r} gives no {', '.join(missing)} to explain")
        shape = inputs[0].shape
        shape = (len(inputs[0]), len(inputs), *shape[1:]) if isinstance(model, EachView) else shape
        self.looks = looks(model, maps_of(seen, shape), layer)

    def _explain(self, state: State, batch: Mapping[str, Array]) -> dict:
        model, inputs, options = self._call(state, batch)
        layers = [layer for look in self.looks for layer in look.candidates]
        out, heat = grad_cam(model, inputs, layers, self._scores, **options)
        logits = jnp.stack([out[answer.output].astype(jnp.float32) for answer in self.answers], 1)
        exclusive = getattr(self.run.task, "exclusive", True)
        return {
            "heat": {layer.name: _by_case(heat[layer.name], layer.maps) for layer in layers},
            "queries": query_maps(out.get("query_attention", ()), inputs[0].shape[-3:-1]),
            "probabilities": (jax.nn.softmax if exclusive else jax.nn.sigmoid)(logits),
            "outputs": jax.tree.map(lambda x: x.astype(jnp.float32), {name: out[name] for name in BESIDE if name in out}),
        }

    def _scores(self, out: Mapping[str, Array]) -> Array:
        """The logits that are explained, [answers, b]."""
        return jnp.stack([
            class_scores(out[answer.output], jnp.full(len(out[answer.output]), index))
            for answer, index in zip(self.answers, self.classes, strict=True)
        ])


def _reached(look: Look, heat: Mapping[str, np.ndarray]) -> Layer:
    """The last candidate with any heat."""
    return next((layer for layer in reversed(look.candidates) if heat[layer.name].any()), look.candidates[-1])


def _by_case(heat: Array, maps: int) -> Array:
    """[answers, b * maps, h, w] -> [b, answers, maps, h, w]."""
    answers, _, height, width = heat.shape
    return jnp.moveaxis(heat.reshape(answers, -1, maps, height, width), 0, 1)
