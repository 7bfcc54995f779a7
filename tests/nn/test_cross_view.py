import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, softmax

from jaxmed.errors import UserError
from jaxmed.nn.cross_view import CrossViewBlock, Exchange
from jaxmed.tree import count, flatten, tree_of


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def jittered(module):
    """Every leaf moved away from the zeros and ones it starts from."""
    for i, (_, leaf) in enumerate(nnx.to_flat_state(nnx.state(module, nnx.Param))):
        leaf.set_value(leaf.get_value() + 0.2 * normal(*leaf.shape, seed=i))
    return module


def reference(p, x, z, heads, plain):
    """The block in float64, with loops over heads; p: path -> leaf."""

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * p[f"{name}.scale"] + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.kernel"] + p.get(f"{name}.bias", 0)

    q = linear(norm(x, "norm_q"), "q")
    k, v = np.split(linear(norm(z, "norm_q" if plain else "norm_kv"), "kv"), 2, -1)
    parts = [np.s_[..., i : i + q.shape[-1] // heads] for i in range(0, q.shape[-1], q.shape[-1] // heads)]
    scores = [softmax(q[h] @ np.swapaxes(k[h], -1, -2) / np.sqrt(q[h].shape[-1]), -1) for h in parts]
    y = x + linear(np.concatenate([s @ v[h] for s, h in zip(scores, parts, strict=True)], -1), "proj")
    hidden = linear(norm(y, "norm"), "mlp.fc1")
    y = y + linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, "mlp.fc2")
    return y if plain else norm(y, "norm_out"), np.mean(scores, 0)


@pytest.mark.parametrize("plain", [False, True])
def test_queries_come_from_the_own_view_and_keys_from_the_other(plain):
    block = jittered(CrossViewBlock(8, 2, plain=plain, rngs=nnx.Rngs(0)))
    p = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(tree_of(block)).items()}
    x, z = normal(2, 3, 2, 8), normal(2, 3, 2, 8, seed=1)
    wanted, weights = reference(p, np.float64(x).reshape(2, 6, 8), np.float64(z).reshape(2, 6, 8), 2, plain)
    found = block(x, block.keys(z).reshape(2, 6, 8))
    np.testing.assert_allclose(found.reshape(2, 6, 8), wanted, rtol=1e-4, atol=1e-5)
    shown = block.weights(x, block.keys(z), jnp.asarray([4, 1]))
    np.testing.assert_allclose(shown, weights[:, [4, 1]], rtol=1e-4, atol=1e-6)


def test_parameter_counts_of_both_forms():
    full, plain = (
        nnx.eval_shape(lambda plain=plain, d=d: CrossViewBlock(d, 24, plain=plain, rngs=nnx.Rngs(0)))
        for plain, d in ((False, 768), (True, 384))
    )
    assert count(full) == 7_089_408 + 2 * 768 and count(plain) == 12 * 384**2 + 10 * 384


@pytest.mark.parametrize(("channels", "pool"), [(8, 1), (6, 2)])
def test_exchanging_views_and_weights_exchanges_the_outputs(channels, pool):
    one, two = (Exchange(channels, 8, 2, 2, pool, {}, dtype="float32", rngs=nnx.Rngs(0)) for _ in range(2))
    for end in ("", "_in", "_out") if one.around else ("",):
        setattr(two, f"cc{end}", getattr(one, f"mlo{end}"))
        setattr(two, f"mlo{end}", getattr(one, f"cc{end}"))
    x, z = normal(1, 4, 5, channels), normal(1, 4, 5, channels, seed=1)
    for a, b in zip(one(x, z), two(z, x)[::-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one(x, z)[0], one(z, x)[1], atol=1e-3)


def test_both_directions_see_the_maps_from_before_the_exchange():
    exchange = Exchange(8, 8, 1, 2, 1, {}, dtype="float32", rngs=nnx.Rngs(0))
    x, z = normal(1, 2, 3, 8), normal(1, 2, 3, 8, seed=1)
    block = exchange.mlo[0]
    np.testing.assert_allclose(exchange(x, z)[1], block(z, block.keys(x).reshape(1, 6, 8)), rtol=1e-5)


def test_zero_initialised_branches_leave_the_stream_alone():
    exchange = Exchange(8, 8, 2, 2, 1, dict(plain=True, zero_init=True), dtype="float32", rngs=nnx.Rngs(0))
    x, z = normal(1, 2, 3, 8), normal(1, 2, 3, 8, seed=1)
    for found, given in zip(exchange(x, z), (x, z), strict=True):
        np.testing.assert_array_equal(found, given)


def test_a_pooled_exchange_goes_around_and_answers_every_token():
    exchange = Exchange(6, 8, 1, 2, 2, {}, dtype="float32", rngs=nnx.Rngs(0))
    x, z = normal(1, 5, 4, 6), normal(1, 5, 4, 6, seed=1)
    added = np.asarray(exchange(x, z)[0] - x)
    np.testing.assert_allclose(added[:, 0:4:2, ::2], added[:, 1:4:2, 1::2], atol=1e-5)
    np.testing.assert_allclose(added[:, 4], added[:, 3], atol=1e-5)
    assert np.abs(added[:, 0] - added[:, 2]).max() > 1e-4


def test_positions_are_those_of_one_map_size():
    block = CrossViewBlock(8, 2, grid=(2, 3), rngs=nnx.Rngs(0))
    x = jnp.ones((1, 2, 3, 8))
    keys = np.asarray(block.keys(x))[0]
    rows, columns = (np.asarray(block.positions[name].get_value()) for name in ("rows", "columns"))
    np.testing.assert_allclose(keys, rows[:, None] + columns[None], atol=1e-6)  # a constant token is zero behind its norm
    with pytest.raises(UserError, match=r"ctb_grid=\(2, 3\), but the views' maps are 3 x 3"):
        jax.eval_shape(block.keys, jnp.ones((1, 3, 3, 8)))


def test_heads_must_divide_the_width():
    with pytest.raises(UserError, match="3 heads do not divide the 8 channels"):
        CrossViewBlock(8, 3, rngs=nnx.Rngs(0))
