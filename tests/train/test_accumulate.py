"""A batch in parts gives the update of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed import parallel
from jaxmed.config import base_config
from jaxmed.errors import UserError
from jaxmed.tasks.classification import Classification
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.state import new_state
from jaxmed.train.step import Recipe, Steps
from tests.train.tiny import CLASSES, Tiny, make_batch


class Plain(nnx.Module):
    """A network without batch statistics and dropout."""

    input_names, frozen, roles = ("image",), (), {}

    def __init__(self):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    def __call__(self, image, train=False, aux=False, rngs=None):
        features = nnx.relu(self.conv(image)).mean((1, 2))
        return {"logits": self.head(features), "features": features}


def one_step(parts, batch, model=None, mesh=None, task=None):
    model, task = model or Plain(), task or Classification(CLASSES, class_weights=(0.7, 1.9))
    config = base_config().optimizer
    config.name = "sgd"  # keeps the gradient itself in its state
    optimizer = make_optimizer(config)
    state = new_state(model, optimizer, task.meters)
    layout = None
    if mesh is not None:
        state = parallel.put_state(state, mesh)
        layout, batch = parallel.state_shardings(state, mesh), parallel.put_batch(batch, mesh)
    steps = Steps(model, task, optimizer, (0.5,) * 3, (0.25,) * 3, 0, layout, Recipe(accumulate=parts))
    state, loss = steps.train(state, batch, jnp.float32(0.1))
    return jax.tree.map(np.asarray, state), float(loss)


def batch_with_gaps():
    """Padding, an unknown label, and classes that are uneven between the parts."""
    batch = make_batch(3)
    batch["label"] = np.array([0, 1, 0, 1, 1, 1, -1, 1], np.int32)
    batch["weight"] = np.array([1, 1, 0, 1, 1, 1, 1, 1], np.float32)
    return batch


def test_update_and_loss_are_those_of_the_whole_batch():
    whole, loss = one_step(1, batch_with_gaps())
    state, same = one_step(4, batch_with_gaps())
    assert same == pytest.approx(loss, rel=1e-6)
    for part in ("params", "opt"):  # float32 sums in another order
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), state[part], whole[part])
    for name in ("count", "accuracy"):
        assert state["meters"][name] == whole["meters"][name]
    assert state["meters"]["count"] == 6


def test_parts_over_four_devices_are_the_same():
    batch = batch_with_gaps()
    whole, loss = one_step(1, batch)
    state, same = one_step(2, batch, mesh=parallel.make_mesh())
    assert same == pytest.approx(loss, rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), state["params"], whole["params"])


def test_batch_statistics_pass_through_the_parts_one_after_the_other():
    batch = make_batch(3)
    task = Classification(CLASSES)
    state, _ = one_step(2, batch, Tiny(), task=task)
    model = Tiny()
    for k in range(2):
        model(jnp.asarray((np.repeat(batch["image"][k::2], 3, -1) / 255 - 0.5) / 0.25, jnp.float32), train=True,
              rngs=nnx.Rngs(dropout=0))  # fmt: skip
    np.testing.assert_allclose(state["stats"]["norm"]["mean"], model.norm.mean.get_value(), rtol=1e-4, atol=1e-6)


def test_parts_need_a_loss_that_is_a_mean_and_a_batch_that_they_divide():
    class Other:
        classes = CLASSES

    with pytest.raises(UserError, match="config.accumulate"):
        Steps(Plain(), Other(), None, (0.5,) * 3, (0.25,) * 3, 0, recipe=Recipe(accumulate=2))
    with pytest.raises(UserError, match="config.accumulate=3 does not cut config.batch_size=8 into equal parts"):
        parallel.check_batch_size(8, parallel.make_mesh(), 3)
