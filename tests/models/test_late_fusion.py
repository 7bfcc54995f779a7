import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.models import late_fusion
from jaxmed.models.late_fusion import LateFusion
from jaxmed.tasks.classification import Classification


@pytest.fixture
def fusion(monkeypatch):
    """Two shallow ResNets, of which nothing but the number of blocks is different from registered ones."""

    def shallow(name, num_classes, **options):
        return jaxmed.create_model(name, num_classes, depths=(1, 1, 1, 1), **options)

    monkeypatch.setattr(late_fusion, "create_model", shallow)
    members = {"first": "resnet18", "second": "resnet18"}
    return lambda mode: LateFusion(3, members=members, mode=mode, rngs=nnx.Rngs(0))


def image():
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, 32, 32, 3)), jnp.float32)


def test_joint_logits_are_the_sum_of_the_members(fusion):
    model = fusion("joint")
    out, (one, two) = model(image(), aux=True), (part(image(), aux=True) for part in (model.first, model.second))
    np.testing.assert_allclose(out["logits"], one["logits"] + two["logits"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out["features"], jnp.concatenate([one["features"], two["features"]], -1))
    np.testing.assert_array_equal(model(image()), out["logits"])


def test_ensemble_probabilities_are_the_mean_of_the_members(fusion):
    model = fusion("ensemble")
    mean = sum(jax.nn.softmax(part(image())) for part in (model.first, model.second)) / 2
    np.testing.assert_allclose(jax.nn.softmax(model(image())), mean, rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(model(image())).sum(-1), 1.0, rtol=1e-5)


def test_members_of_an_ensemble_learn_apart():
    each = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2, 3)), jnp.float32)
    task, batch = Classification(("a", "b", "c")), {"label": jnp.array([0, 2, 1, -1])}
    weights = jnp.array([[0.3, 0.0]] * 4)[..., None]

    def gradient(each):
        return jax.grad(lambda each: task.losses({"member_logits": each}, batch).sum())(each)

    own = jnp.concatenate([
        jax.grad(lambda one: task.losses({"logits": one}, batch).sum())(each[:, i])[:, None] for i in range(2)
    ], 1)  # fmt: skip
    np.testing.assert_allclose(gradient(each), own, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient(each + weights)[:, 1], gradient(each)[:, 1], rtol=1e-6, atol=1e-7)


def test_weights_go_into_the_role_that_is_named(fusion):
    model = fusion("joint")
    assert model.roles == {"first": ("first",), "second": ("second",)}
    before = np.asarray(model.first.conv1.kernel.get_value())
    source = jaxmed.create_model("resnet18", 5, depths=(1, 1, 1, 1), rngs=nnx.Rngs(9))
    from jaxmed.weights import to_state_dict

    jaxmed.load_weights(model, to_state_dict(source), into="second", new_head=True)
    np.testing.assert_array_equal(model.second.conv1.kernel.get_value(), source.conv1.kernel.get_value())
    np.testing.assert_array_equal(model.first.conv1.kernel.get_value(), before)


BAD = [({"mode": "vote"}, "'joint'.*'ensemble'"), ({"num_classes": None}, "nothing to add")]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_say_what_is_possible(options, message):
    with pytest.raises(UserError, match=message):
        jaxmed.create_model("thynet", **options)
