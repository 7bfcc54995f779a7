import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.errors import UserError
from jaxmed.nn.view_gate import ViewGate
from jaxmed.tree import flatten, tree_of


def views(b=5, d=6):
    return np.random.default_rng(0).standard_normal((b, 4, d))


def make(**options):
    return ViewGate(6, rngs=nnx.Rngs(0), **options)


def test_the_view_gate_is_equations_8_to_10():
    gate, v = make(), views()
    w = {k: np.asarray(a, np.float64) for k, a in flatten(tree_of(gate)).items()}
    g = np.concatenate([v[:, i] for i in range(4)], 1)
    logits = np.maximum(g @ w["fc1.kernel"] + w["fc1.bias"], 0) @ w["fc2.kernel"] + w["fc2.bias"]
    a = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    fused, weights = gate(jnp.asarray(v, jnp.float32))
    np.testing.assert_allclose(weights, a, rtol=1e-5)
    np.testing.assert_allclose(fused, np.concatenate([a[:, [i]] * v[:, i] for i in range(4)], 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)


def test_masked_views_weigh_nothing_and_the_others_keep_their_proportions():
    v = jnp.asarray(views(), jnp.float32)
    plain, masked = make(), make(mask_missing_views=True)
    present = jnp.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    every, (fused, weights) = np.asarray(plain(v)[1], np.float64), masked(v, present)
    expected = np.where(present, every, 0)
    expected[4] = every[4]  # nothing is left to weigh: as if no view were missing
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), rtol=1e-5)
    assert not np.any(weights[:4] * ~present[:4]) and np.isfinite(fused).all()


def test_gradients_through_a_mask_are_finite_and_leave_masked_features_alone():
    gate, v = make(mask_missing_views=True), jnp.asarray(views(2), jnp.float32)
    present = jnp.array([[1, 0, 0, 1], [0, 0, 0, 0]], bool)
    grad = jax.grad(lambda v: jnp.sum(jnp.square(gate(v, present)[0])))(v)
    assert np.isfinite(grad).all() and np.any(grad[1])
    of_f = jax.grad(lambda v, w: jnp.sum(w[..., None] * v), 0)(v, gate(v, present)[1])
    assert not np.any(of_f[0, 1:3])


def test_masking_without_knowing_the_views_is_refused():
    with pytest.raises(UserError, match=r"present=bool \[b, 4\]"):
        make(mask_missing_views=True)(jnp.zeros((1, 4, 6)))


def test_dropout_acts_on_the_fused_feature_and_not_on_the_weights():
    gate, v = make(dropout=0.5), jnp.asarray(views(50), jnp.float32)
    (still, weights), (dropped, same) = gate(v), gate(v, train=True, rngs=nnx.Rngs(dropout=0))
    np.testing.assert_array_equal(weights, same)
    kept = np.asarray(dropped != 0)
    np.testing.assert_allclose(np.asarray(dropped)[kept], 2 * np.asarray(still)[kept], rtol=1e-6)
    assert 0.4 < kept.mean() < 0.6
    with pytest.raises(UserError, match="rngs"):
        gate(v, train=True)
