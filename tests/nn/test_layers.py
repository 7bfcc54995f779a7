import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.errors import UserError
from jaxmed.nn import BatchNorm, Conv, DepthwiseConv, Linear, adaptive_avg_pool, avg_pool, dropout
from jaxmed.nn.norm import statistics_of


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_batch_norm_trains_on_the_batch_and_keeps_torchs_running_statistics():
    norm, x = BatchNorm(3), 2 * normal(4, 5, 6, 3) + 1
    norm.scale.set_value(jnp.array([1.0, 2.0, 3.0]))
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(var + 1e-5) * [1, 2, 3]
    np.testing.assert_allclose(norm(jnp.asarray(x), train=True), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.mean.get_value(), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var.get_value(), 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_batch_norm_in_evaluation_uses_and_keeps_the_running_statistics():
    norm, x = BatchNorm(3), normal(4, 3)
    norm.mean.set_value(jnp.array([1.0, 2.0, 3.0]))
    norm.var.set_value(jnp.array([4.0, 1.0, 0.25]))
    got = norm(jnp.asarray(x))
    np.testing.assert_allclose(got, (x - [1, 2, 3]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(norm.mean.get_value(), [1, 2, 3])


def test_batch_norm_refuses_to_train_on_one_value():
    with pytest.raises(UserError, match="batch of 2"):
        BatchNorm(3)(jnp.zeros((1, 3)), train=True)


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    norm = BatchNorm(3, dtype="bfloat16")
    y = norm(jnp.asarray(normal(64, 3) + 100, jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16 and norm.mean.get_value().dtype == jnp.float32
    assert float(jnp.abs(y.astype(jnp.float32)).max()) < 5


def trained_norm(x, rows=None):
    """(output, running mean, running variance) of one training call; statistics of `rows` if they are given."""
    norm = BatchNorm(3)
    with statistics_of(rows):
        y = norm(jnp.asarray(x), train=True)
    return y, norm.mean.get_value(), norm.var.get_value()


ROWS = np.array([True, False, True, True, False])


def test_statistics_of_some_rows_are_those_of_a_batch_of_these_rows():
    x = 2 * normal(5, 4, 6, 3) + 1
    x[~ROWS] = 50.0
    y, mean, var = jax.jit(trained_norm)(x, ROWS)
    alone, *running = trained_norm(x[ROWS])
    np.testing.assert_allclose(y[ROWS], alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((mean, var), running, rtol=1e-5)
    here = x[ROWS].mean((0, 1, 2)), x[ROWS].std((0, 1, 2))
    np.testing.assert_allclose(y[~ROWS], np.broadcast_to((50 - here[0]) / here[1], (2, 4, 6, 3)), rtol=1e-4)


def test_rows_without_statistics_send_no_gradient_to_the_others():
    x, wanted = jnp.asarray(normal(5, 4, 3)), jnp.asarray(normal(5, 4, 3)[::-1])

    def seen(x):
        return jnp.sum((trained_norm(x, jnp.asarray(ROWS))[0] * wanted)[ROWS])

    grads = np.asarray(jax.grad(seen)(x))
    assert not grads[~ROWS].any() and grads[ROWS].any((1, 2)).all()


def test_statistics_are_of_all_rows_again_outside_the_context():
    x = normal(5, 4, 3)
    plain = trained_norm(x)
    with pytest.raises(KeyError):
        with statistics_of(jnp.asarray(ROWS)):
            raise KeyError
    for rows in (None, np.ones(5, bool)):
        for a, b in zip(plain, trained_norm(x, rows), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not np.allclose(plain[1], trained_norm(x, jnp.asarray(ROWS))[1])


def test_contexts_nest():
    x = normal(5, 4, 3)
    with statistics_of(jnp.asarray(ROWS)):
        with statistics_of(None):
            pass
        norm = BatchNorm(3)
        norm(jnp.asarray(x), train=True)
    np.testing.assert_allclose(norm.mean.get_value(), 0.1 * x[ROWS].mean((0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [[False, False, False], [False, True, False]])
def test_rows_with_fewer_than_two_values_leave_the_running_statistics_to_serve(rows):
    norm, x = BatchNorm(3), normal(3, 3)
    norm.mean.set_value(jnp.array([1.0, 2.0, 3.0]))
    norm.var.set_value(jnp.array([4.0, 1.0, 0.25]))
    with statistics_of(jnp.array(rows)):
        y = norm(jnp.asarray(x), train=True)
    np.testing.assert_allclose(y, norm(jnp.asarray(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.mean.get_value(), [1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(norm.var.get_value(), [4, 1, 0.25], rtol=1e-6)


def test_dropout_keeps_the_mean_and_is_the_identity_in_evaluation():
    x = jnp.ones((200, 100))
    dropped = dropout(x, 0.2, True, nnx.Rngs(dropout=0))
    assert set(np.unique(dropped)) == {0.0, 1.25}
    assert abs(float(dropped.mean()) - 1) < 0.02
    assert dropout(x, 0.2, False, None) is x
    with pytest.raises(UserError, match="rngs=nnx.Rngs"):
        dropout(x, 0.2, True, None)


@pytest.mark.parametrize("size", [(2, 2), (7, 7), (9, 5), (14, 14)])
def test_adaptive_pooling_averages_torchs_cells(size):
    x = normal(2, *size, 3)
    expected = np.zeros((2, 7, 7, 3))
    for i in range(7):
        for j in range(7):
            rows = slice(i * size[0] // 7, -(-(i + 1) * size[0] // 7))
            expected[:, i, j] = x[:, rows, j * size[1] // 7 : -(-(j + 1) * size[1] // 7)].mean((1, 2))
    np.testing.assert_allclose(adaptive_avg_pool(jnp.asarray(x), 7), expected, rtol=1e-5, atol=1e-6)


def test_average_pooling_drops_rows_that_fill_no_window():
    x = normal(1, 5, 4, 2)
    expected = x[:, :4].reshape(1, 2, 2, 2, 2, 2).mean((2, 4))
    np.testing.assert_allclose(avg_pool(jnp.asarray(x), 2, 2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda rngs: Conv(4, 8, 3, padding=1, groups=2, dtype="bfloat16", rngs=rngs),
    lambda rngs: DepthwiseConv(4, 3, padding=1, dtype="bfloat16", rngs=rngs),
    lambda rngs: Linear(4, 8, dtype="bfloat16", rngs=rngs),
])
def test_layers_compute_in_their_dtype_with_float32_parameters(make):
    layer = make(nnx.Rngs(0))
    out = jax.eval_shape(lambda layer, x: layer(x), layer, jnp.zeros((1, 5, 5, 4)))
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}
